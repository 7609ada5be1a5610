"""Installation of the bundle, configuration files and units."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from noderuntime.agent import bundle, desired, units
from noderuntime.agent.instance import InstanceMetrics, InstanceRuntime, InstanceSpec, parse
from noderuntime.agent.layout import Layout
from noderuntime.config import RunscConfig, load
from noderuntime.core import durable_files as files
from noderuntime.core.errors import InvalidArgument, ResourceExhausted
from noderuntime.edge.server.serve import GRACE_SECONDS

DIGEST = "0123456789abcdef"
SPEC = InstanceSpec.model_validate(
    {"handlers": [{"name": "gv", "type": "GVisor"}, {"name": "r", "type": "Runc"}]}
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = tmp_path / "source"
    (home / "bin").mkdir(parents=True)
    (home / "BUNDLE").write_text(f"{DIGEST}\n")
    (home / "bin/tool").write_text("tool")
    (home / "bin/tool").chmod(0o755)
    (home / "bin/link").symlink_to("tool")
    return home


@pytest.fixture
def node_layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "host")


def test_install_lays_the_version_beside_others(source: Path, node_layout: Layout) -> None:
    assert bundle.install(source, node_layout, verify=True)
    assert bundle.manifest(node_layout.versions / DIGEST) == bundle.manifest(source)
    assert not node_layout.current.is_symlink()
    assert not bundle.install(source, node_layout, verify=True)


def test_install_starts_an_interrupted_copy_over(source: Path, node_layout: Layout) -> None:
    partial = node_layout.versions / f".{DIGEST}.partial"
    (partial / "bin").mkdir(parents=True)
    (partial / "bin/tool").write_text("to")
    bundle.install(source, node_layout, verify=True)
    assert not partial.exists()
    assert (node_layout.versions / DIGEST / "bin/tool").read_text() == "tool"


def test_install_repairs_a_damaged_version_in_place(source: Path, node_layout: Layout) -> None:
    bundle.install(source, node_layout, verify=True)
    tool = node_layout.versions / DIGEST / "bin/tool"
    with tool.open() as running:
        tool.chmod(0o600)
        (node_layout.versions / DIGEST / "bin/link").unlink()
        assert bundle.install(source, node_layout, verify=True)
        assert running.read() == "tool"
    assert bundle.manifest(node_layout.versions / DIGEST) == bundle.manifest(source)


def test_install_with_verify_repairs_changed_content(source: Path, node_layout: Layout) -> None:
    bundle.install(source, node_layout, verify=True)
    (node_layout.versions / DIGEST / "bin/tool").write_text("evil")
    assert not bundle.install(source, node_layout, verify=False)
    assert bundle.install(source, node_layout, verify=True)
    assert (node_layout.versions / DIGEST / "bin/tool").read_text() == "tool"


def test_install_that_does_not_fit_writes_nothing(
    source: Path, node_layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (source / "bin/tool").open("ab") as tool:
        tool.truncate(3 << 20)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 << 20))
    with pytest.raises(
        ResourceExhausted, match=r"No space left in .*: the bundle needs 3 MiB, 2 MiB are free"
    ):
        bundle.install(source, node_layout, verify=True)
    assert list(node_layout.versions.iterdir()) == []


def test_install_waits_for_no_other_filesystem(
    source: Path, node_layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sync")  # it would wait for a volume whose server does not respond
    assert bundle.install(source, node_layout, verify=True)


def test_write_replaces_a_file_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    assert files.write(path, b"one", mode=0o640)
    assert files.write(path, b"two")
    assert not files.write(path, b"two")
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_write_through_a_symlink_keeps_the_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("one")
    (tmp_path / "link").symlink_to("real")
    files.write(tmp_path / "link", b"two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "two"


def test_daemon_config_can_be_loaded_by_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(desired.daemon_config(SPEC, DIGEST))
    config = load(tmp_path / "config.toml")
    assert {name: handler.type for name, handler in config.handlers.items()} == {"gv": "gvisor", "r": "runc"}
    assert str(config.handlers["gv"].path) == f"/opt/noderuntime/versions/{DIGEST}/bin/runsc"


def test_daemons_own_settings_reach_the_daemon(tmp_path: Path) -> None:
    runtime = {
        "logLevel": "Debug",
        "metrics": {"address": "[::1]:9464"},
        "gvisor": {"platform": "KVM", "hostSockets": "Connect", "directFs": False, "coreTags": True},
    }
    spec = InstanceSpec.model_validate({**SPEC.model_dump(by_alias=True), "runtime": runtime})
    (tmp_path / "config.toml").write_text(desired.daemon_config(spec, DIGEST))
    config = load(tmp_path / "config.toml")
    assert (config.log.level, config.metrics.address) == ("debug", "[::1]:9464")
    chosen = RunscConfig(platform="kvm", host_uds="open", directfs=False, core_tags=True)
    assert {name: handler.runsc for name, handler in config.handlers.items()} == {
        "gv": chosen,
        "r": RunscConfig(),
    }
    assert desired.switch_config(spec, DIGEST).revision != desired.switch_config(SPEC, DIGEST).revision


def test_default_settings_leave_the_config_as_it_was() -> None:
    spec = InstanceSpec.model_validate({**SPEC.model_dump(by_alias=True), "runtime": {"gvisor": {}}})
    assert desired.daemon_config(spec, DIGEST) == desired.daemon_config(SPEC, DIGEST)
    assert "[log]" not in desired.daemon_config(spec, DIGEST)


def test_hostile_metrics_address_adds_no_setting(tmp_path: Path) -> None:
    runtime = {"metrics": {"address": '1"\n[server]\nsocket = "/x'}}
    spec = InstanceSpec.model_validate({**SPEC.model_dump(by_alias=True), "runtime": runtime})
    (tmp_path / "config.toml").write_text(desired.daemon_config(spec, DIGEST))
    with pytest.raises(InvalidArgument, match=r"metrics\.address: .*is not an IP address and port"):
        load(tmp_path / "config.toml")


@pytest.mark.parametrize(
    ("runtime", "field"),
    [({"logLevel": "Loud"}, "logLevel"), ({"gvisor": {"platform": "Ptrace"}}, "gvisor.platform")],
)
def test_parse_refuses_settings_that_are_not_offered(runtime: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"spec.runtime.{field}"):
        parse({"spec": {"runtime": runtime}})


def test_switch_config_revision_changes_with_its_input(tmp_path: Path) -> None:
    first = desired.switch_config(SPEC, DIGEST)
    (tmp_path / "switch.toml").write_text(desired.render(first))
    assert desired.load(tmp_path / "switch.toml") == first
    assert desired.switch_config(SPEC, DIGEST) == first
    assert desired.switch_config(SPEC, "f" * 16).revision != first.revision
    removed = SPEC.model_copy(update={"state": "Removed"})
    assert desired.switch_config(removed, DIGEST).revision != first.revision


@pytest.mark.parametrize("text", ["\N{ROCKET}", "caf\xe9", "\x7f", 'a"\\\n\t[b]'])
def test_text_of_an_instance_survives_toml(tmp_path: Path, text: str) -> None:
    config = desired.switch_config(SPEC, DIGEST, text)
    (tmp_path / "switch.toml").write_text(desired.render(config))
    assert desired.load(tmp_path / "switch.toml") == config
    runtime = InstanceRuntime(metrics=InstanceMetrics(address=text))
    spec = SPEC.model_copy(update={"runtime": runtime})
    assert tomllib.loads(desired.daemon_config(spec, DIGEST))["metrics"] == {"address": text}


def test_switch_config_refuses_invalid_values(tmp_path: Path) -> None:
    (tmp_path / "switch.toml").write_text('mode = "Sideways"')
    with pytest.raises(InvalidArgument, match="mode"):
        desired.load(tmp_path / "switch.toml")
    with pytest.raises(InvalidArgument, match="upstream_socket"):
        desired.switch_config(SPEC.model_copy(update={"upstream_socket": 'x"\n'}), DIGEST)


def test_units_change_with_the_daemons_revision() -> None:
    one = units.render(units.daemon_revision(DIGEST, "a"))
    two = units.render(units.daemon_revision(DIGEST, "b"))
    assert {name for name in one if one[name] != two[name]} == {"noderuntime.service"}
    assert "OnActiveSec=75" in units.timer(60)


def test_daemon_that_does_not_stop_is_killed_before_its_node_is_not_ready() -> None:
    unit = units.render("a")["noderuntime.service"]
    (seconds,) = re.findall(r"(?m)^TimeoutStopSec=(\d+)$", unit)
    assert GRACE_SECONDS < int(seconds) < 30


def test_parse_names_the_field_with_an_unknown_value() -> None:
    with pytest.raises(InvalidArgument, match=r"spec\.handlers\.0\.type"):
        parse({"metadata": {"generation": 1}, "spec": {"handlers": [{"name": "x", "type": "Kata"}]}})
