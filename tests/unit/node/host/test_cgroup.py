"""Real cgroups below one of the test's own: they need root and nothing else."""

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

from noderuntime.node.host.cgroup import Cgroups, path_in_hierarchy
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


def test_many_join_new_groups_at_the_same_time(group: str) -> None:
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


async def test_removal_waits_for_what_is_ending(group: str) -> None:
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


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("memory/pod/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("pod/c/memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 9\n"),
    ],
)
def test_kills_for_want_of_memory_are_counted(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    if not file.startswith("memory/"):
        (tmp_path / "cgroup.controllers").write_text("memory")
    assert Cgroups(tmp_path).oom_kills("/pod/c") == 2
    assert Cgroups(tmp_path).oom_kills("/pod/gone") == 0


def test_two_versions_are_told_apart(tmp_path: Path) -> None:
    assert Cgroups(tmp_path).version == 1
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    found = Cgroups(tmp_path)
    assert (found.version, found.hierarchies, found.controllers()) == (2, (tmp_path,), {"cpu", "memory"})


def test_links_to_hierarchies_are_not_counted_twice(tmp_path: Path) -> None:
    (tmp_path / "cpu,cpuacct").mkdir()
    (tmp_path / "cpu,cpuacct/cgroup.procs").touch()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    assert [one.name for one in Cgroups(tmp_path).hierarchies] == ["cpu,cpuacct"]


def test_a_directory_is_turned_into_a_path() -> None:
    v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    assert path_in_hierarchy("/sys/fs/cgroup/a/b" if v2 else "/sys/fs/cgroup/memory/a/b") == "/a/b"


def test_swap_is_limited_by_a_file_where_groups_have_it(tmp_path: Path) -> None:
    (tmp_path / "system.slice").mkdir()
    (tmp_path / "cgroup.controllers").touch()
    assert not Cgroups(tmp_path).swap_file()
    (tmp_path / "system.slice/memory.swap.max").touch()
    assert Cgroups(tmp_path).swap_file()
    (tmp_path / "cgroup.controllers").unlink()
    assert not Cgroups(tmp_path).swap_file()
