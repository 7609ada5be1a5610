"""runc's state files that are missing, damaged or without a cgroup: no other process is affected."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from noderuntime.core.errors import DataLoss, Internal
from noderuntime.core.ids import new_id
from noderuntime.node.executor.runc import RuncExecutor
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.host.process import identify

LOST = [None, "{}", '{"init_process_pid": 0}', "[]", "no JSON", '{"init_process_pid": 7}']


class Watched(LinuxHost):
    """A host that fails the test if a cgroup is listed or killed."""

    async def cgroup_pids(self, path: str) -> list[int]:
        raise AssertionError(path)

    async def kill_cgroup(self, path: str) -> None:
        raise AssertionError(path)

    async def empty_cgroup(self, path: str, *, timeout: float) -> None:
        raise AssertionError(path)


@pytest.fixture
def executor(tmp_path: Path) -> RuncExecutor:
    """The handler of a runc whose calls all succeed and are recorded in the file ``called``."""
    runc = tmp_path / "runc.sh"
    runc.write_text(f'#!/bin/sh\nshift 4; echo "$@" >>{tmp_path}/called\n')
    runc.chmod(0o755)
    return RuncExecutor("runc", Watched(), runc, tmp_path, systemd_cgroup=False)


@pytest.fixture
def first() -> Iterator[subprocess.Popen[bytes]]:
    """The first process of a container."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def container(tmp_path: Path, state: str | None) -> str:
    """Create runc's state of a container and return its ID. None leaves the state file out."""
    made = new_id()
    (tmp_path / "runc" / made).mkdir(parents=True)
    if state is not None:
        (tmp_path / "runc" / made / "state.json").write_text(state)
    return made


@pytest.mark.parametrize("paths", [{}, {"memory": ""}])
async def test_container_without_its_own_cgroup_is_deleted(
    tmp_path: Path, executor: RuncExecutor, paths: dict[str, str]
) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    state = {"init_process_pid": ended.pid, "init_process_start": 1, "cgroup_paths": paths}
    made = container(tmp_path, json.dumps(state))
    assert not await executor.kill(made, made, signal.SIGKILL)
    with pytest.raises(Internal, match="no cgroup of its own"):
        await executor.pids(made, made)
    await executor.delete(made, made)
    assert (tmp_path / "called").read_text() == f"delete {made}\n"


@pytest.mark.parametrize("state", LOST)
async def test_kill_needs_no_state_of_runc(
    tmp_path: Path, executor: RuncExecutor, first: subprocess.Popen[bytes], state: str | None
) -> None:
    made = container(tmp_path, state)
    assert await executor.kill(made, made, signal.SIGTERM, process=identify(first.pid))
    assert first.wait(5) == -signal.SIGTERM


@pytest.mark.parametrize("state", LOST)
async def test_delete_removes_a_state_that_is_damaged(
    tmp_path: Path, executor: RuncExecutor, state: str | None
) -> None:
    made = container(tmp_path, state)
    await executor.delete(made, made)
    assert (tmp_path / "called").read_text() == f"delete --force {made}\n"
    assert not (tmp_path / "runc" / made).exists()


async def test_kill_without_state_or_process_names_the_damaged_state(
    tmp_path: Path, executor: RuncExecutor
) -> None:
    made = container(tmp_path, "no JSON")
    with pytest.raises(DataLoss, match=f"runc's state of {made} is damaged"):
        await executor.kill(made, made, signal.SIGKILL)
