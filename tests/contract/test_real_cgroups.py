"""Processes in real cgroups, below a cgroup of the test."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from noderuntime.node.host.cgroup import Cgroups
from noderuntime.node.host.linux import LinuxHost


@pytest.fixture
async def group() -> AsyncIterator[str]:
    path = f"/noderuntime-test-{uuid.uuid4().hex[:8]}"
    yield path
    await Cgroups().remove(path)
    assert not any((one / path.lstrip("/")).exists() for one in Cgroups().hierarchies)


async def test_a_process_joins_every_hierarchy_and_is_listed_from_above(group: str) -> None:
    host = LinuxHost()
    with subprocess.Popen(["sleep", "30"]) as child:
        await host.join_cgroup(f"{group}/pod/leaf", child.pid)
        assert await host.cgroup_pids(group) == [child.pid]
        joined = Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
        assert all(line.endswith(f":{group}/pod/leaf") for line in joined)
        child.kill()
    assert await host.cgroup_pids(group) == []


def test_processes_join_new_cgroups_concurrently(group: str) -> None:
    cgroups, children = Cgroups(), [subprocess.Popen(["sleep", "30"]) for _ in range(8)]
    barrier = threading.Barrier(len(children))

    def join(child: subprocess.Popen[bytes], turn: int) -> None:
        barrier.wait()
        cgroups.join(f"{group}/{turn}/deep/leaf", child.pid)

    try:
        with ThreadPoolExecutor(len(children)) as threads:
            for turn in range(20):
                list(threads.map(lambda child, turn=turn: join(child, turn), children))
                assert sorted(cgroups.pids(f"{group}/{turn}")) == sorted(child.pid for child in children)
    finally:
        for child in children:
            child.kill()
            child.wait()


async def test_cgroup_removal_waits_for_exiting_processes(group: str) -> None:
    cgroups = Cgroups()
    with subprocess.Popen(["sleep", "30"]) as child:
        cgroups.join(f"{group}/leaf", child.pid)
        removal = asyncio.create_task(cgroups.remove(group))
        await asyncio.sleep(0.05)
        assert not removal.done()
        child.send_signal(signal.SIGKILL)
        child.wait()
        await removal


async def test_a_missing_cgroup_is_empty_and_can_be_removed(group: str) -> None:
    assert Cgroups().pids(group) == []
    await Cgroups().remove(group)
