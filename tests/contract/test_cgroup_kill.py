"""Cgroups whose processes do not want to end: threaded, frozen, forking; and one that the kernel keeps."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from noderuntime.core.errors import DeadlineExceeded, HostError
from noderuntime.node.host import cgroup_files
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.cgroup import ROOT, Cgroups
from noderuntime.node.host.process import identify, wait

V2 = next((path for path in (ROOT, ROOT / "unified") if (path / "cgroup.controllers").exists()), None)
FREEZER = ROOT / "freezer"
_THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()"
_FORKING = "import os, time\nwhile True: os.fork() or os._exit(time.sleep(0.01) or 0)"

needs_v2 = pytest.mark.skipif(V2 is None, reason="cgroup v2 is not mounted")
needs_v1_freezer = pytest.mark.skipif(not FREEZER.is_dir(), reason="cgroup v1 has no freezer here")


@pytest.fixture(params=["v1", "v2"])
def cgroups(request: pytest.FixtureRequest) -> Cgroups:
    """The node's hierarchies, and those of v2 alone."""
    made = Cgroups(V2) if request.param == "v2" and V2 else Cgroups()
    if request.param != f"v{made.version}":
        pytest.skip(f"cgroup {request.param} is not mounted")
    return made


@pytest.fixture
async def group(cgroups: Cgroups) -> AsyncIterator[str]:
    """A cgroup of the test's own, which has to be gone when it ends."""
    path = f"/noderuntime-test-{uuid.uuid4().hex[:8]}"
    yield path
    await cgroups.empty(path, 10)
    await cgroups.remove(path)
    assert not any((one / path.lstrip("/")).exists() for one in cgroups.hierarchies)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process with two threads."""
    with subprocess.Popen([sys.executable, "-c", _THREAD]) as started:
        while len(list(Path(f"/proc/{started.pid}/task").iterdir())) < 2:
            time.sleep(0.01)
        yield started
        started.kill()


def ref(child: subprocess.Popen[bytes]) -> ProcessRef:
    """Identify a process that runs."""
    process = identify(child.pid)
    assert process is not None
    return process


@pytest.fixture
def frozen(cgroups: Cgroups, group: str, child: subprocess.Popen[bytes]) -> Path:
    """The file that says whether the child's cgroup is frozen; it is."""
    cgroups.join(f"{group}/leaf", child.pid)
    directories = [hierarchy / group.lstrip("/") / "leaf" for hierarchy in cgroups.hierarchies]
    files = [one / name for one in directories for name in ("freezer.state", "cgroup.freeze")]
    file = next(file for file in files if file.exists())
    file.write_text("FROZEN" if file.name == "freezer.state" else "1")
    return file


async def test_kill_ends_frozen_processes(
    cgroups: Cgroups, group: str, frozen: Path, child: subprocess.Popen[bytes]
) -> None:
    process = ref(child)
    assert cgroups.kill(group) == [process]
    assert await wait(process, 10)


def test_thaw_lets_frozen_processes_run(cgroups: Cgroups, group: str, frozen: Path) -> None:
    cgroups.thaw(group)
    assert frozen.read_text().strip() in ("THAWED", "0")


async def test_empty_ends_processes_that_fork(cgroups: Cgroups, group: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _FORKING]) as forking:
        cgroups.join(f"{group}/a/b", forking.pid)
        await cgroups.empty(group, 10)
        assert cgroups.pids(group) == []
        assert forking.wait(5) == -9


@needs_v2
def test_v2_kills_a_whole_tree_at_once(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    assert V2 is not None
    group, name = Cgroups(V2), f"/noderuntime-test-{uuid.uuid4().hex[:8]}"
    group.join(f"{name}/leaf", child.pid)
    assert cgroup_files.kill(V2 / name.lstrip("/"))
    assert child.wait(5) == -9
    asyncio.run(group.remove(name))
    (tmp_path / "cgroup.procs").touch()
    assert not cgroup_files.kill(tmp_path), "a kernel before 5.14"


@needs_v2
@pytest.mark.parametrize("cgroups", ["v2"], indirect=True)
@pytest.mark.parametrize("killed", ["", "/threads"])
async def test_threaded_cgroup_is_listed_killed_and_removed(
    cgroups: Cgroups, group: str, child: subprocess.Popen[bytes], killed: str
) -> None:
    cgroups.join(group, child.pid)
    cgroups.make(f"{group}/threads")
    threads = cgroups.hierarchies[0] / group.lstrip("/") / "threads"
    (threads / "cgroup.type").write_text("threaded")
    thread = next(
        task.name for task in Path(f"/proc/{child.pid}/task").iterdir() if task.name != f"{child.pid}"
    )
    (threads / "cgroup.threads").write_text(thread)
    with pytest.raises(OSError, match="not supported"):
        (threads / "cgroup.procs").read_bytes()
    assert cgroups.pids(group) == cgroups.pids(f"{group}/threads") == [child.pid]
    removal = asyncio.create_task(cgroups.remove(group))
    await asyncio.sleep(0)
    await cgroups.empty(group + killed, 10)
    await removal
    assert child.wait(5) == -9


@needs_v1_freezer
@pytest.mark.parametrize("cgroups", ["v1"], indirect=True)
async def test_error_names_the_state_of_what_does_not_end(
    cgroups: Cgroups, group: str, child: subprocess.Popen[bytes]
) -> None:
    cgroups.join(f"{group}/leaf", child.pid)
    elsewhere = FREEZER / f"{group.lstrip('/')}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "cgroup.procs").write_text(str(child.pid))
    (elsewhere / "freezer.state").write_text("FROZEN")
    try:
        with pytest.raises(
            DeadlineExceeded, match=rf"0.2 s after SIGKILL, process {child.pid} is in state D, in \w+ "
        ):
            await cgroups.empty(group, 0.2)
        with pytest.raises(HostError, match=rf"process {child.pid} is in state D, in \w+") as failure:
            await cgroups.remove(group)
        assert "\n" not in str(failure.value)
    finally:
        (elsewhere / "freezer.state").write_text("THAWED")
        child.wait()
        elsewhere.rmdir()


@pytest.mark.parametrize("path", ["", "/", "//"])
def test_the_root_cgroup_is_never_killed(path: str) -> None:
    with pytest.raises(HostError, match="all processes of the node"):
        Cgroups().kill(path)
