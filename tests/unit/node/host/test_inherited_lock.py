"""A lock that outlives its owner, with real programs and processes that are killed."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from noderuntime.core.errors import DeadlineExceeded
from noderuntime.node.host.inherited_lock import inherited_lock
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.host.process import identify

DAEMON = """
    import asyncio, sys
    from pathlib import Path
    from noderuntime.node.host.inherited_lock import inherited_lock
    from noderuntime.node.host.linux import LinuxHost

    async def main():
        async with inherited_lock(Path(sys.argv[1]), "programs") as fds:
            await LinuxHost().run(["sh", "-c", sys.argv[2]], timeout=60, pass_fds=fds)

    asyncio.run(main())
"""


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def killed_daemon(directory, fifo, script):
    """Kill a daemon whose program has reported a PID, and return that process."""
    argv = [sys.executable, "-c", textwrap.dedent(DAEMON), str(directory), script]
    daemon = subprocess.Popen(argv)
    pid = int(fifo.read_text(encoding="ascii"))
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    process = identify(pid)
    assert process is not None, "the program outlives the daemon"
    return process


@pytest.mark.parametrize(
    "script",
    ["echo $$ > {fifo}; exec sleep 60", "sleep 60 & echo $! > {fifo}; wait"],
    ids=["program", "child"],
)
async def test_programs_of_a_killed_daemon_end_first(tmp_path, fifo, script):
    program = killed_daemon(tmp_path, fifo, script.format(fifo=fifo))
    async with inherited_lock(tmp_path, "programs"):
        assert await LinuxHost().wait(program, timeout=5)


async def background_sleep(fds):
    done = await LinuxHost().run(["sh", "-c", "sleep 60 & echo $!"], timeout=10, pass_fds=fds)
    process = identify(int(done.stdout))
    assert process is not None
    return process


async def test_programs_of_a_failed_block_end_first(tmp_path):
    programs = []

    async def fail():
        async with inherited_lock(tmp_path, "programs") as fds:
            programs.append(await background_sleep(fds))
            raise DeadlineExceeded("too late")

    with pytest.raises(DeadlineExceeded):
        await fail()
    async with inherited_lock(tmp_path, "programs"):
        assert await LinuxHost().wait(programs[0], timeout=5)


async def test_programs_left_by_a_successful_block_stay(tmp_path):
    async with inherited_lock(tmp_path, "programs") as fds:
        helper = await background_sleep(fds)
    async with inherited_lock(tmp_path, "programs"):
        assert identify(helper.pid) == helper
    os.kill(helper.pid, signal.SIGKILL)


async def test_only_programs_that_inherited_the_lock_are_killed(tmp_path):
    """This process holds the lock through a descriptor that no program inherits, and survives."""
    async with inherited_lock(tmp_path, "programs of pod 5b"):
        with pytest.raises(DeadlineExceeded, match=r"the end of programs of pod 5b \(PID unknown\)"):
            async with inherited_lock(tmp_path, "programs of pod 5b", seconds=0.05):
                pytest.fail("two blocks at once")


async def test_missing_directory_is_not_locked(tmp_path):
    async with inherited_lock(tmp_path / "none", "programs") as fds:
        assert fds == ()
