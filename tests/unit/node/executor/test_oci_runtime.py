"""The features and the container states of OCI runtimes, with small scripts in place of the runtime."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from noderuntime.core.errors import DataLoss, DeadlineExceeded
from noderuntime.core.ids import new_id
from noderuntime.node.executor.base import Features
from noderuntime.node.executor.oci import OciExecutor
from noderuntime.node.host.linux import LinuxHost

_FEATURES = {
    "mountOptions": ["ro", "rro"],
    "linux": {"namespaces": ["user"], "mountExtensions": {"idmap": {"enabled": True}}},
}


def executor(
    tmp_path: Path, script: str, *, systemd_cgroup: bool = False, host: LinuxHost | None = None
) -> OciExecutor:
    """Return the executor of a runtime that is a script. ``$5`` is the verb, ``$6`` the container."""
    binary = tmp_path / "runtime"
    binary.write_text(f"#!/bin/sh\n[ {int(systemd_cgroup)} = 1 ] && shift\n{script}\n")
    binary.chmod(0o755)
    return OciExecutor("other", host or LinuxHost(), binary, tmp_path, systemd_cgroup=systemd_cgroup)


async def test_probe_reads_the_features(tmp_path: Path) -> None:
    script = f"[ $5 = features ] && echo '{json.dumps(_FEATURES)}' || echo other version 2.1"
    assert await executor(tmp_path, script).probe() == Features("2.1", True, True)


async def test_probe_without_the_features_verb_has_none(tmp_path: Path) -> None:
    script = "[ $5 = --version ] && echo crun version 1.8.1 || exit 1"
    assert await executor(tmp_path, script).probe() == Features("1.8.1", False, False)


@pytest.mark.parametrize("state", ["no JSON", "[]", "{}", '{"bundle": "/nonexistent"}'])
async def test_kill_with_a_malformed_state_is_data_loss(tmp_path: Path, state: str) -> None:
    container = new_id()
    with pytest.raises(DataLoss, match=f"other's state of {container} is damaged"):
        await executor(tmp_path, f"echo '{state}'").kill(container, "", signal.SIGKILL)


@pytest.mark.parametrize(
    ("cgroups_path", "listed"),
    [("/kubepods/pod1/c1", "/kubepods/pod1/c1"), ("a-b.slice:nr:c1", "/a.slice/a-b.slice/nr-c1.scope")],
)
async def test_pids_are_those_of_the_specs_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroups_path: str, listed: str
) -> None:
    paths: list[str] = []

    async def cgroup_pids(self: LinuxHost, path: str) -> list[int]:
        paths.append(path)
        return []

    monkeypatch.setattr(LinuxHost, "cgroup_pids", cgroup_pids)
    (tmp_path / "config.json").write_text(json.dumps({"linux": {"cgroupsPath": cgroups_path}}))
    state = json.dumps({"pid": 0, "status": "stopped", "bundle": str(tmp_path)})
    runtime = executor(tmp_path, f"echo '{state}'", systemd_cgroup=":" in cgroups_path)
    assert await runtime.pids("c1", "") == []
    assert paths == [listed]


async def test_delete_without_state_uses_force(tmp_path: Path) -> None:
    container = new_id()
    left = tmp_path / "oci" / container
    left.mkdir(parents=True)
    await executor(tmp_path, f'echo "$@" >>{tmp_path}/calls; exit 1').delete(container, "")
    assert (tmp_path / "calls").read_text().splitlines()[-1].endswith(f"delete --force {container}")
    assert not left.exists()
    await executor(tmp_path, "exit 1").delete(container, "")


@pytest.mark.parametrize("systemd_cgroup", [False, True])
def test_crun_subgroup_is_disabled_with_the_systemd_driver(tmp_path: Path, systemd_cgroup: bool) -> None:
    spec: dict[str, Any] = {"annotations": {"kept": "as it is"}}
    executor(tmp_path, "", systemd_cgroup=systemd_cgroup).adapt_spec(spec, "", is_root=False)
    added = {"run.oci.systemd.subgroup": ""} if systemd_cgroup else {}
    assert spec["annotations"] == {"kept": "as it is", **added}


@pytest.mark.parametrize("is_member", [True, False])
async def test_exec_sync_kills_only_members_of_the_cgroup(tmp_path: Path, is_member: bool) -> None:
    """Without the check, a process that reuses the PID before the identification would be killed."""
    (tmp_path / "config.json").write_text(json.dumps({"linux": {"cgroupsPath": "/pod/c1"}}))
    state = json.dumps({"pid": 0, "status": "stopped", "bundle": str(tmp_path)})
    with subprocess.Popen(["sleep", "60"]) as sleeper:

        class InCgroup(LinuxHost):
            async def cgroup_pids(self, path: str) -> list[int]:
                return [sleeper.pid] if path == "/pod/c1" and is_member else []

        script = f"[ $5 = state ] && echo '{state}' && exit; echo {sleeper.pid} >$9; sleep 1"
        runtime = executor(tmp_path, script, host=InCgroup())
        with pytest.raises(DeadlineExceeded):
            await runtime.exec_sync("c1", "", {"args": ["app"]}, timeout=0.3)
        assert sleeper.poll() == (-signal.SIGKILL if is_member else None)
        sleeper.kill()


async def test_process_that_has_the_pid_of_an_ended_container_is_spared(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"linux": {"cgroupsPath": "/pod/c1"}}))
    with subprocess.Popen(["sleep", "60"]) as stranger:

        class Empty(LinuxHost):
            async def cgroup_pids(self, path: str) -> list[int]:
                return []

        state = json.dumps({"pid": stranger.pid, "status": "running", "bundle": str(tmp_path)})
        made = executor(tmp_path, f"echo '{state}'", host=Empty())
        assert not await made.kill("c1", "", signal.SIGKILL)
        assert stranger.poll() is None
        stranger.kill()
