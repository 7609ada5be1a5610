"""The sources of a kubelet's endpoint, and edits that change nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from noderuntime.agent.layout import ENDPOINT
from noderuntime.agent.switch import configkey, flags, unitfile
from noderuntime.agent.switch.plan import KEY, Edit, KubeletFacts, plan, undo
from noderuntime.core.errors import FailedPrecondition

OLD = "unix:///run/containerd/containerd.sock"
FLAG = f"--{unitfile.FLAG}"
ENV = Path("/var/lib/kubelet/kubeadm-flags.env")
CONFIG = Path("/var/lib/kubelet/config.yaml")
UNIT = {Path("/usr/lib/systemd/system/kubelet.service"): "[Service]\nExecStart=/usr/bin/kubelet $ARGS\n"}


def facts(**known: object) -> KubeletFacts:
    return KubeletFacts(**{"unit": "kubelet.service", "argv": ("kubelet",), "unit_files": UNIT, **known})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'A="{FLAG}={OLD} --x=1"\n', f'A="{FLAG}={ENDPOINT} --x=1"\n'),
        (f"A='--x {FLAG} {OLD}'", f"A='--x {FLAG} {ENDPOINT}'"),
        (f'A={FLAG}="{OLD}"\r\n', f'A={FLAG}="{ENDPOINT}"\r\n'),
        (f"# {FLAG}={OLD}\n", f"# {FLAG}={OLD}\n"),
        (f"A=--no{FLAG}={OLD}\n", f"A=--no{FLAG}={OLD}\n"),
    ],
)
def test_replace_flag_keeps_every_other_byte(text: str, expected: str) -> None:
    assert flags.replace(text, unitfile.FLAG, ENDPOINT) == expected


def test_last_flag_takes_precedence() -> None:
    assert flags.last(("kubelet", "--a=1", "--a", "2"), "a") == "2"
    assert flags.last(("kubelet", "--ab=1"), "a") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a: 1\n{KEY}: {OLD}\nb: 2\n", f"a: 1\n{KEY}: {ENDPOINT}\nb: 2\n"),
        (f'{KEY}: "{OLD}"  # why\r\nb: 2\r\n', f"{KEY}: {ENDPOINT}  # why\r\nb: 2\r\n"),
        (f"{KEY}:\nb: 2\n", f"{KEY}: {ENDPOINT}\nb: 2\n"),
        (f"{KEY}: # none\n", f"{KEY}: {ENDPOINT} # none\n"),
        ("a: 1", f"a: 1\n{KEY}: {ENDPOINT}\n"),
        ("---\na:\n  - b\n", f"---\na:\n  - b\n{KEY}: {ENDPOINT}\n"),
        (f"a:\n  {KEY}: nested\n", f"a:\n  {KEY}: nested\n{KEY}: {ENDPOINT}\n"),
        (f'{{"{KEY}": "{OLD}", "b": 2}}', f'{{"{KEY}": "{ENDPOINT}", "b": 2}}'),
        ('{"b": 2}', f'{{\n "{KEY}": "{ENDPOINT}","b": 2}}'),
        ("{}", f'{{\n "{KEY}": "{ENDPOINT}"}}'),
    ],
)
def test_put_key_keeps_every_other_byte(text: str, expected: str) -> None:
    assert configkey.put(text, KEY, ENDPOINT) == expected
    assert configkey.get(expected, KEY) == ENDPOINT


@pytest.mark.parametrize(
    "text",
    [
        f"{KEY}: >-\n  {OLD}\n",
        f"{KEY}: &x {OLD}\n",
        f"{KEY}: !!str {OLD}\n",
        f"{KEY}: a\n{KEY}: b\n",
        f"{KEY}:\n  {OLD}\n",
        "a: 1\n---\nb: 2\n",
        f'{{"{KEY}": null}}',
    ],
)
def test_put_key_refuses_unsafe_forms(text: str) -> None:
    with pytest.raises(FailedPrecondition):
        configkey.put(text, KEY, ENDPOINT)


def test_plan_edits_the_environment_file_with_the_flag() -> None:
    found = plan(facts(environment_files={ENV: f"A={FLAG}={OLD}", CONFIG: "B=1"}), ENDPOINT)
    assert found.edits == (Edit(ENV, f"A={FLAG}={OLD}", f"A={FLAG}={ENDPOINT}"),)
    assert (found.configured_by, found.reload) == ("FlagsFile", False)


def test_plan_drop_in_sorts_last() -> None:
    directory = Path("/etc/kubernetes/kubelet.conf.d")
    others = {directory / "10-a.conf": "", directory / "zz-last.conf": f"{KEY}: {OLD}\n"}
    known = facts(config=(CONFIG, ""), config_dir=directory, drop_ins=others)
    (edit,) = plan(known, ENDPOINT).edits
    assert known.endpoint == OLD
    assert edit.path.suffix == ".conf"
    assert edit.path > max(others)
    assert configkey.get(edit.after or "", KEY) == ENDPOINT


def test_plan_edits_kubeadms_instance_config_too() -> None:
    instance_config = CONFIG.with_name("instance-config.yaml")
    text = f"{KEY}: {OLD}\n"
    found = plan(facts(config=(CONFIG, text), instance_config=(instance_config, text)), ENDPOINT)
    assert [edit.path for edit in found.edits] == [CONFIG, instance_config]


def test_plan_overrides_the_flag_in_a_units_command() -> None:
    command = f"ExecStart=/usr/bin/kubelet \\\n  {FLAG}={OLD} $A"
    unit = f"[Service]\nEnvironment=A=1\n{command}\n[Install]\nExecStart=no\n"
    (edit,) = plan(facts(unit_files={Path("/k.service"): unit}), ENDPOINT).edits
    assert edit.path == Path("/etc/systemd/system/kubelet.service.d/99-noderuntime.conf")
    assert (edit.after or "").endswith(
        f"[Service]\nExecStart=\nExecStart=/usr/bin/kubelet {FLAG}={ENDPOINT} $A\n"
    )


def test_plan_overrides_the_flag_in_a_units_environment() -> None:
    line = f'Environment="ARGS={FLAG}={OLD} --v=2"'
    (edit,) = plan(facts(unit_files={Path("/k"): f"[Service]\n{line}\nExecStart=/k $ARGS\n"}), ENDPOINT).edits
    assert (edit.after or "").endswith(f'[Service]\nEnvironment="ARGS={FLAG}={ENDPOINT} --v=2"\n')


def test_plan_refuses_a_flag_of_unknown_origin() -> None:
    with pytest.raises(FailedPrecondition, match=r"neither in kubelet\.service nor"):
        plan(facts(argv=("kubelet", f"{FLAG}={OLD}")), ENDPOINT)


def test_plan_is_empty_for_a_switched_kubelet() -> None:
    assert plan(facts(environment_files={ENV: f"A={FLAG}={ENDPOINT}"}), ENDPOINT).edits == ()
    assert plan(facts(config=(CONFIG, f"{KEY}: {ENDPOINT}\n")), ENDPOINT).edits == ()


def test_healthz_port_follows_the_kubelets_configuration() -> None:
    assert facts().healthz_port == 10248
    assert facts(config=(CONFIG, '{"healthzPort": 12345}')).healthz_port == 12345
    assert facts(config=(CONFIG, "healthzPort: 0\n")).healthz_port == 0
    assert facts(argv=("kubelet", "--healthz-port=7")).healthz_port == 7


def test_undo_restores_the_content_or_only_the_endpoint() -> None:
    edit = Edit(CONFIG, "before", f"{KEY}: {ENDPOINT}\n")
    assert undo(edit, edit.after, ENDPOINT, OLD) == "before"
    assert undo(edit, None, ENDPOINT, OLD) == "before"
    assert undo(edit, f"{edit.after}maxPods: 1\n", ENDPOINT, OLD) == f"{KEY}: {OLD}\nmaxPods: 1\n"
    assert undo(edit, "another endpoint", ENDPOINT, OLD) == "another endpoint"
    assert undo(Edit(CONFIG, None, ENDPOINT), f"{ENDPOINT}\n#", ENDPOINT, OLD) is None
