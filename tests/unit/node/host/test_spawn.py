"""Real programs, and the signals and identities of processes."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from noderuntime.core.errors import DeadlineExceeded, HostError
from noderuntime.core.tasks import start
from noderuntime.node.host import spawn
from noderuntime.node.host.base import Completed, ProcessRef
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.host.process import descendants


@pytest.fixture
def host() -> LinuxHost:
    return LinuxHost()


async def test_run_returns_streams_and_status(host: LinuxHost) -> None:
    done = await host.run(["sh", "-c", "cat; echo err >&2; exit 3"], timeout=10, stdin=b"in" * 50_000)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in" * 50_000, b"err\n")


async def test_run_sets_environment_and_directory(host: LinuxHost, tmp_path: Path) -> None:
    done = await host.run(["/bin/sh", "-c", "echo $A; pwd"], timeout=10, env={"A": "b"}, cwd=tmp_path)
    assert done.stdout.decode().split() == ["b", str(tmp_path)]


async def test_run_discards_output_beyond_the_limit(host: LinuxHost) -> None:
    done = await host.run(["head", "-c", "1000000", "/dev/zero"], timeout=10, output_limit=1000)
    assert (done.returncode, len(done.stdout)) == (0, 1000)


async def test_run_does_not_wait_for_background_processes(host: LinuxHost) -> None:
    before = time.monotonic()
    done = await host.run(["sh", "-c", "echo $$; sleep 30 & echo $!"], timeout=20)
    assert time.monotonic() - before < 10
    left = await host.process(int(done.stdout.split()[1]))
    assert left is not None
    assert await host.signal(left, signal.SIGKILL)


async def test_run_kills_the_process_group_at_the_deadline(host: LinuxHost, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with pytest.raises(DeadlineExceeded, match=r"sh did not finish within 0\.5 s"):
        await host.run(["sh", "-c", f"sleep 30 & echo $! >{pidfile}; wait"], timeout=0.5)
    child = await host.process(int(pidfile.read_text()))
    assert child is None or await host.wait(child, timeout=10)


async def test_cancelled_run_kills_the_program(host: LinuxHost, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    task = asyncio.create_task(host.run(["sh", "-c", f"echo $$ >{pidfile}; exec sleep 30"], timeout=30))
    while not (pidfile.exists() and pidfile.read_text()):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await host.process(int(pidfile.read_text())) is None


_UNREAPABLE = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
traced, go = os.getpid(), os.pipe()
if os.fork():
    libc.prctl(0x59616D61, ctypes.c_ulong(-1))  # PR_SET_PTRACER: any process
    os.write(go[1], b"1")
    time.sleep(60)
os.setsid()
os.read(go[0], 1)
if libc.ptrace(0x4206, traced, 0, 0):  # PTRACE_SEIZE
    os._exit(1)
with open(sys.argv[1], "w") as file:
    file.write(f"{traced} {os.getpid()}")
time.sleep(20)
"""
"""A program that its parent cannot reap once it is killed, until its tracer, whose PID is in a file, ends."""


@dataclass
class Unreapable:
    """The running program."""

    running: asyncio.Task[Completed]
    pid: int
    tracer: int

    def let_go(self) -> None:
        """Make it reapable."""
        os.kill(self.tracer, signal.SIGKILL)

    def is_there(self) -> bool:
        return Path(f"/proc/{self.pid}").exists()


@pytest.fixture
async def unreapable(host: LinuxHost, tmp_path: Path) -> Unreapable:
    pids = tmp_path / "pids"
    running = start(host.run([sys.executable, "-c", _UNREAPABLE, str(pids)], timeout=60), name="run")
    async with asyncio.timeout(20):
        while not pids.exists() or not pids.read_text():
            await asyncio.sleep(0.01)
    return Unreapable(running, *map(int, pids.read_text().split()))


async def test_killed_program_that_does_not_end_blocks_no_task(unreapable: Unreapable) -> None:
    unreapable.running.cancel()
    began = time.monotonic()
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert time.monotonic() - began < 10  # a loop that waits for the program is blocked for 20 s
    assert not unreapable.running.done()
    unreapable.let_go()
    with pytest.raises(asyncio.CancelledError):
        await unreapable.running
    assert not unreapable.is_there()


async def test_killed_program_that_never_ends_is_reaped_later(
    unreapable: Unreapable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "_END_SECONDS", 0.05)
    unreapable.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unreapable.running
    assert unreapable.is_there()
    unreapable.let_go()
    async with asyncio.timeout(10):
        while unreapable.is_there():
            await asyncio.sleep(0.01)


async def test_run_of_a_missing_program_is_a_host_error(host: LinuxHost) -> None:
    with pytest.raises(HostError) as error:
        await host.run(["/no/such/program"], timeout=10)
    assert error.value.errno == errno.ENOENT


async def test_run_leaks_no_descriptors(host: LinuxHost) -> None:
    await host.run(["true"], timeout=10)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await host.run(["true"], timeout=10)
        with pytest.raises(HostError):
            await host.run(["/no/such/program"], timeout=10)
    assert len(os.listdir("/proc/self/fd")) <= before  # garbage of other tests can be collected meanwhile


async def test_launched_program_replies_once_released(host: LinuxHost) -> None:
    script = "import os;os.read(int(os.environ['G']),1);os.write(int(os.environ['R']),b'verdict\\nmore')"
    child = await host.launch([sys.executable, "-c", script], gate="G", reply="R")
    with pytest.raises(DeadlineExceeded):
        await child.reply(timeout=0.3)
    await child.release()
    assert await child.reply(timeout=10) == b"verdict"
    assert await child.daemonized(timeout=10) == 0
    await child.close()


async def test_close_kills_a_launched_program(host: LinuxHost) -> None:
    before = len(os.listdir("/proc/self/fd"))
    script = "import os,time;os.write(int(os.environ['R']),b'%d\\n'%os.getpid());time.sleep(1000)"
    child = await host.launch([sys.executable, "-c", script], gate="G", reply="R")
    pid = int(await child.reply(timeout=10))
    await child.close()
    assert await host.process(pid) is None
    assert len(os.listdir("/proc/self/fd")) == before


async def test_process_that_reuses_a_pid_is_not_signalled(host: LinuxHost) -> None:
    me = await host.process(os.getpid())
    assert me is not None
    stranger = ProcessRef(me.pid, me.start_time - 1)
    assert not await host.signal(stranger, 0)
    assert await host.signal(me, 0)
    assert await host.wait(stranger, timeout=1)
    assert not await host.wait(me, timeout=0.01)


async def test_thread_id_is_not_a_process(host: LinuxHost) -> None:
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.get_native_id).result()
        assert await host.process(thread) is None
        start_time = int(Path(f"/proc/{thread}/stat").read_text().rpartition(")")[2].split()[19])
        assert not await host.signal(ProcessRef(thread, start_time), 0)
        assert await host.wait(ProcessRef(thread, start_time), timeout=1)


async def test_process_is_identified_by_its_command_line(host: LinuxHost) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        assert await host.process(sleeper.pid, names="sleep") == await host.process(sleeper.pid)
        assert await host.process(sleeper.pid, names="conmon") is None
        sleeper.kill()


@pytest.mark.parametrize("pid", [-1, 0, (1 << 22) + 1])
async def test_invalid_pid_is_not_a_process(host: LinuxHost, pid: int) -> None:
    assert await host.process(pid) is None
    assert not await host.signal(ProcessRef(pid, 0), 0)


async def test_only_processes_in_the_cgroup_are_signalled(tmp_path: Path) -> None:
    members: list[int] = []

    class InCgroup(LinuxHost):
        async def cgroup_pids(self, path: str) -> list[int]:
            return members if path == "/pod/container" else []

    host, pidfile = InCgroup(), tmp_path / "pid"
    script = f"sh -c 'echo $$ >{pidfile}; exec sleep 30' & echo $$ >{pidfile}.top; wait"
    running = start(host.run(["sh", "-c", script], timeout=30), name="run")
    async with asyncio.timeout(10):
        while not all(file.exists() and file.read_text() for file in (pidfile, Path(f"{pidfile}.top"))):
            await asyncio.sleep(0.01)
    outside = await host.process(int(pidfile.read_text()))
    top = await host.process(int(Path(f"{pidfile}.top").read_text()))
    assert outside
    assert top
    assert not await host.signal(top, signal.SIGKILL, cgroup="/pod/container")
    await host.kill_tree(top, cgroup="/pod/container")
    assert not running.done()
    members.append(top.pid)
    assert await host.signal(top, 0, cgroup="/pod/container")
    await host.kill_tree(top, cgroup="/pod/container")
    assert (await running).returncode == -signal.SIGKILL
    assert await host.signal(outside, signal.SIGKILL)  # a descendant outside the cgroup has survived


async def test_kill_tree_kills_all_descendants(host: LinuxHost, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    script = f"sh -c 'sleep 30 & echo $! >{pidfile}; wait'; true"
    running = asyncio.create_task(host.run(["sh", "-c", f"echo $$ >{pidfile}.top; {script}"], timeout=30))
    while not (pidfile.exists() and pidfile.read_text()):
        await asyncio.sleep(0.01)
    top = await host.process(int(Path(f"{pidfile}.top").read_text()))
    leaf = await host.process(int(pidfile.read_text()))
    assert top is not None
    assert leaf is not None
    await host.kill_tree(top)
    assert (await running).returncode == -signal.SIGKILL
    assert await host.wait(leaf, timeout=10)


def test_descendants_of_processes_that_end_meanwhile() -> None:
    for _ in range(50):
        with subprocess.Popen(["sh", "-c", "true & true & wait"]) as top:
            waiter = threading.Thread(target=top.wait)
            waiter.start()
            while waiter.is_alive():
                descendants(top.pid)
        assert descendants(top.pid) == []
