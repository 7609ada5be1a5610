"""The commands' output: tables, JSON, one line per error, and the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakecri import CONTAINER, HOSTILE, POD, FakeRuntime

from noderuntime import cli
from noderuntime.cri.v1 import api_pb2

Run = Callable[..., tuple[int, str, str]]


def _columns(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


def test_pods_prints_a_table_newest_first(run: Run, runtime: FakeRuntime) -> None:
    runtime.pods.append(
        api_pb2.PodSandbox(
            id="b2" * 32,
            metadata=api_pb2.PodSandboxMetadata(name="db", namespace="shop"),
            state=api_pb2.SANDBOX_NOTREADY,
            created_at=3,
        )
    )
    status, out, _ = run("pods")
    head, first, second = out.splitlines()
    assert status == 0
    assert head.split("   ")[0] == "POD ID"
    assert first.split()[:6] == ["b2b2b2b2b2b2b", "shop", "db", "0", "NotReady", "-"]
    assert second.split()[:6] == ["a1a1a1a1a1a1a", "shop", "web", "2", "Ready", "gvisor"]


def test_pods_prints_every_field_as_json(run: Run) -> None:
    status, out, _ = run("pods", "-o", "json")
    (pod,) = json.loads(out)["items"]
    assert status == 0
    assert (pod["id"], pod["state"], pod["metadata"]["namespace"]) == (POD, "SANDBOX_READY", "shop")


def test_ps_prints_the_pod_of_a_container(run: Run) -> None:
    _, out, _ = run("ps")
    row = _columns(out)[1]
    assert row[:6] == ["c1c1c1c1c1c1c", "shop", "web", "app", "0", "Running"]
    assert row[-2:] == ["shop/app:1", "a1a1a1a1a1a1a"]


def test_ps_prints_exited_containers_only_with_all(run: Run, runtime: FakeRuntime) -> None:
    runtime.containers[0].state = api_pb2.CONTAINER_EXITED
    assert len(run("ps")[1].splitlines()) == 1
    assert "Exited" in run("ps", "-a")[1]
    assert json.loads(run("ps", "-o", "json")[1])["containers"] == []


def test_ps_filters_by_pod_prefix(run: Run) -> None:
    assert len(run("ps", "--pod", "a1a1")[1].splitlines()) == 2
    assert len(run("ps", "--pod", "b2")[1].splitlines()) == 1


def test_images_prints_a_row_for_each_name(run: Run) -> None:
    _, out, _ = run("images")
    assert _columns(out)[1:4] == [
        ["a:1", "eeeeeeeeeeeee", "4.9", "KiB", "yes"],
        ["b:1", "eeeeeeeeeeeee", "4.9", "KiB", "yes"],
        ["shop/app@sha256:00", "fffffffffffff", "3.0", "MiB", "-"],
    ]
    assert out.splitlines()[-1] == "/images: 2.0 KiB in 12 files"
    assert set(json.loads(run("images", "-o", "json")[1])) == {
        "images",
        "imageFilesystems",
        "containerFilesystems",
    }


def test_status_prints_conditions_and_handlers(run: Run, runtime: FakeRuntime) -> None:
    runtime.conditions.append(
        api_pb2.RuntimeCondition(type="NetworkReady", status=False, reason="NoCNI", message="no file")
    )
    status, out, _ = run("status")
    assert status == 0
    assert out.startswith("noderuntime 9.9, CRI v1, at ")
    assert ["NetworkReady", "False", "NoCNI", "no", "file"] in _columns(out)
    assert any(row[:2] == ["runc", "noderuntime"] for row in _columns(out))
    assert ["(default)", "upstream", "-", "-"] in _columns(out)
    answer = json.loads(run("status", "-o", "json")[1])
    assert answer["info"]["noderuntime"]["handlers"]["runc"] == HOSTILE


def test_inspect_prints_a_pod_by_id_prefix_with_its_info(run: Run) -> None:
    _, out, _ = run("inspect", "a1a1")
    assert f"  id: {POD}" in out
    assert "    pid: 7" in out
    assert "createdAt: 1970-01-01T00:00:01Z" in out
    answer = json.loads(run("inspect", "-o", "json", "a1a1")[1])
    assert answer["info"] == {"info": {"pid": 7}, "text": "no JSON"}


def test_inspect_prints_containers_and_images(run: Run) -> None:
    assert f"id: {CONTAINER}" in run("inspect", CONTAINER[:5])[1]
    assert "e" * 64 in run("inspect", "b:1")[1]


def test_inspect_of_a_full_id_calls_no_list(run: Run, runtime: FakeRuntime) -> None:
    """Lists fail while the upstream is unavailable."""
    runtime.lists_fail = True
    assert run("inspect", POD)[0] == 0
    status, _, err = run("inspect", POD[:20])
    assert status == 1
    assert "the node's own runtime is not available" in err


@pytest.mark.parametrize("typed", ["dead", "d" * 64, "no:such", "\x1b[2J"])
def test_inspect_of_an_unknown_id_fails_with_one_line(run: Run, typed: str) -> None:
    status, out, err = run("inspect", typed)
    assert (status, out) == (1, "")
    assert err.startswith("noderuntime: no pod, container or image ")
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_logs_refuses_an_ambiguous_prefix(run: Run, runtime: FakeRuntime) -> None:
    runtime.containers.append(api_pb2.Container(id="c1" * 8 + "d" * 48))
    status, _, err = run("logs", "c1")
    assert status == 1
    assert "c1c1c1c1" in err
    assert err.count("\n") == 1


def test_output_escapes_hostile_names(run: Run, runtime: FakeRuntime) -> None:
    runtime.pods[0].metadata.name = HOSTILE
    runtime.containers[0].image.user_specified_image = HOSTILE
    runtime.conditions[0].message = HOSTILE
    runtime.status.labels[HOSTILE] = HOSTILE
    runtime.pods[0].labels[HOSTILE] = HOSTILE
    for command in (["pods"], ["ps"], ["status"], ["inspect", CONTAINER]):
        for form in ([], ["-o", "json"]):
            _, out, _ = run(*command, *form)
            assert "evil" in out
            assert set(out) <= {"\n", *map(chr, range(32, 127))}, (command, form)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pods", "--fast"], "--fast"),
        (["pods", "-o", "yaml"], "yaml"),
        (["inspect"], "id"),
        (["logs", "--tail", "-1", "x"], "--tail"),
    ],
)
def test_run_exits_with_2_for_invalid_arguments(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.run(arguments)
    assert caught.value.code == 2
    assert expected in capsys.readouterr().err


def test_run_without_a_daemon_suggests_the_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    socket = f"{tmp_path}/{'d' * (95 - len(str(tmp_path)))}/none.sock"  # almost the longest path of a socket
    assert cli.run(["pods", "--socket", socket]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert ": connection failed: No such file or directory (" in err
    assert "noderuntime doctor" in err


def test_run_ignores_a_closed_pipe(socket: Path, runtime: FakeRuntime) -> None:
    runtime.pods *= 5000
    command = [sys.executable, "-m", "noderuntime", "pods", "--socket", str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"POD ID")
        process.stdout.close()
        assert process.stderr.read() == b""
