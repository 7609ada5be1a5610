"""Execs with small scripts in place of the runtime."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fakesessions import FakeConversation

from noderuntime.core.errors import DeadlineExceeded, NotFound, ToolError
from noderuntime.core.tasks import start
from noderuntime.node.executor import execs as execs_module
from noderuntime.node.executor.base import ExecResult
from noderuntime.node.executor.command import OciCommand
from noderuntime.node.executor.execs import Execs, Found, Started, Target
from noderuntime.node.host.base import Program
from noderuntime.node.host.linux import LinuxHost

_PROCESS = {"args": ["app"], "terminal": False}
_NO_PROCESS = (1 << 22) + 1
"""Larger than any PID."""


class Container:
    """A container whose runtime is a script: ``$2`` is the path of the spec, ``$3`` that of the PID file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.identified: list[int] = []
        self.killed: list[int] = []
        self.host = LinuxHost()

    def execs(self, script: str) -> Execs:
        runtime = self.directory / "runtime"
        runtime.write_text(f"#!/bin/sh\n{script}\n")
        runtime.chmod(0o755)
        return Execs(OciCommand(self.host, runtime, ()), self.directory / "exec")

    def target(self) -> Target:
        return Target(lambda *paths: paths, self._identify)

    async def start(self, script: str, **fields: object) -> Started:
        return await self.execs(script).start(self.target(), _PROCESS | fields, stdin=True)

    async def run(self, script: str, *, timeout: float | None = 10) -> ExecResult:
        return await self.execs(script).run(self.target(), _PROCESS, timeout=timeout)

    async def until(self, name: str) -> str:
        """Wait until the script has written a file, and return what it wrote."""
        async with asyncio.timeout(10):
            while not (file := self.directory / name).exists() or not file.read_text():
                await asyncio.sleep(0.005)
        return file.read_text()

    async def _identify(self, pid: int) -> Found:
        self.identified.append(pid)
        process = await self.host.process(pid)

        async def kill() -> None:
            self.killed.append(pid)
            (self.directory / "killed").touch()
            if process is not None:
                await self.host.kill_tree(process)

        async def ended() -> None:
            if process is not None:
                await self.host.wait(process, timeout=30)

        return Found(kill, ended)


@pytest.fixture
async def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Container]:
    """Yield a container. In the end no file, descriptor or event of the loop may be left."""
    monkeypatch.setattr(execs_module, "_IDLE_SECONDS", 0.05)
    before, descriptors = _readers(), len(os.listdir("/proc/self/fd"))
    made = Container(tmp_path)
    yield made
    assert list((tmp_path / "exec").iterdir()) == []
    async with asyncio.timeout(10):
        while _readers() != before or len(os.listdir("/proc/self/fd")) > descriptors:
            await asyncio.sleep(0.01)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the node that belongs to no container."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def _readers() -> set[int]:
    """Return the descriptors that the event loop watches."""
    return set(asyncio.get_running_loop()._selector.get_map())  # type: ignore[attr-defined]


async def output(program: Program) -> bytes:
    read = b""
    while data := (await program.read())[1]:
        read += data
    return read


async def test_exec_starts_when_its_pid_is_written(container: Container) -> None:
    started = await container.start('echo about itself; grep -q app "$2" && echo 42 >"$3"; cat; exit 3')
    await started.program.write(b"in")
    started.program.end_input()
    assert await output(started.program) == b"about itself\nin"
    assert await started.program.wait() == 3
    await started.program.close()
    assert container.identified == [42]


async def test_exec_that_ends_immediately_is_started(container: Container) -> None:
    started = await container.start('echo 42 >"$3"; exit 5')
    assert await started.program.wait() == 5
    await started.program.close()


@pytest.mark.parametrize("terminal", [False, True])
async def test_exec_that_cannot_start_is_the_runtimes_error(container: Container, terminal: bool) -> None:
    with pytest.raises(ToolError, match="runtime exec failed with exit status 255: no such thing"):
        await container.start("echo no such thing >&2; exit 255", terminal=terminal)


async def test_exec_with_a_missing_runtime_names_it(tmp_path: Path) -> None:
    execs = Execs(OciCommand(LinuxHost(), tmp_path / "none", ()), tmp_path)
    with pytest.raises(NotFound, match="none is missing"):
        await execs.start(Container(tmp_path).target(), _PROCESS, stdin=False)


async def test_cancelled_start_leaves_no_runtime(container: Container) -> None:
    starting = start(container.start(f"echo $$ >{container.directory}/pid; sleep 30"), name="start")
    pid = int(await container.until("pid"))
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert await container.host.process(pid) is None


async def test_cancelled_start_leaves_no_unfinished_pid_file(container: Container) -> None:
    """A runc that is killed before it renames the file leaves it under another name."""
    unfinished = 'touch "$(dirname $3)/.$(basename $3)"'
    starting = start(
        container.start(f"{unfinished}; echo $$ >{container.directory}/pid; sleep 30"), name="start"
    )
    await container.until("pid")
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert list((container.directory / "exec").iterdir()) == []


async def test_exec_sync_returns_status_and_streams(container: Container) -> None:
    assert await container.run('echo 42 >"$3"; echo o; echo e >&2; exit 3') == ExecResult(3, b"o\n", b"e\n")


async def test_exec_sync_that_cannot_start_is_the_runtimes_error(container: Container) -> None:
    with pytest.raises(ToolError, match="runtime exec failed with exit status 255: no such thing"):
        await container.run("echo no such thing >&2; exit 255")


async def test_exec_sync_kills_its_process_at_the_deadline(container: Container) -> None:
    with pytest.raises(DeadlineExceeded, match=r"within 0\.5 s"):
        await container.run(f'sleep 30 & echo $! | tee {container.directory}/pid >"$3"; wait', timeout=0.5)
    pid = int(await container.until("pid"))
    assert (container.identified, container.killed) == ([pid], [pid])
    assert await container.host.process(pid) is None


async def test_exec_sync_kills_its_process_when_cancelled(container: Container) -> None:
    script = f'sleep 30 & echo $! | tee {container.directory}/pid >"$3"; wait'
    running = start(container.run(script, timeout=None), name="run")
    pid = int(await container.until("pid"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await container.host.process(pid) is None


async def test_exec_sync_spares_a_process_that_got_the_pid_later(
    container: Container, sleeper: subprocess.Popen[bytes]
) -> None:
    script = f"""
    until_exists() {{ until [ -e {container.directory}/$1 ]; do sleep 0.01; done; }}
    echo {_NO_PROCESS} >"$3"
    until_exists identified
    echo {sleeper.pid} >"$3"
    echo done >{container.directory}/replaced
    until_exists killed
    """
    running = start(container.run(script), name="run")
    async with asyncio.timeout(10):
        while not container.identified:
            await asyncio.sleep(0.005)
    (container.directory / "identified").touch()
    await container.until("replaced")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert container.killed == [_NO_PROCESS]
    assert sleeper.poll() is None


async def test_exec_sync_kills_a_process_that_starts_at_the_deadline(
    container: Container, sleeper: subprocess.Popen[bytes]
) -> None:
    class Ending(FakeConversation):
        """A runtime without output, which writes the PID file when it is killed."""

        def __init__(self, pidfile: str) -> None:
            super().__init__()
            self._pidfile = Path(pidfile)

        async def close(self) -> None:
            await super().close()
            self._pidfile.write_text(str(sleeper.pid))

    class Late(OciCommand):
        async def converse(self, verb: str, *arguments: str, **_: object) -> Ending:
            return Ending(arguments[1])

    execs = Execs(Late(container.host, Path("runtime"), ()), container.directory / "exec")
    with pytest.raises(DeadlineExceeded):
        await execs.run(container.target(), _PROCESS, timeout=0.05)
    assert sleeper.wait(timeout=10) == -signal.SIGKILL


_COPIES = """
process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
open(sys.argv[3], "w").write(str(process.pid))
code = process.wait()
try:
    while data := os.read(process.stdout.fileno(), 4096):
        os.write(1, data)
except BrokenPipeError:
    sys.exit(code)
"""
"""A runtime that copies the output of its process to the end of file, as runc does."""


def copying(container: Container, script: str) -> str:
    """Return a runtime for :class:`Container`, which runs a script and copies its output."""
    program = container.directory / "copies.py"
    program.write_text(f"import os, subprocess, sys\nscript = {script!r}{_COPIES}")
    return f'exec {sys.executable} {program} "$@"'


async def test_exec_ends_though_a_child_writes_on(container: Container) -> None:
    ended = await container.run(copying(container, "yes & exit 7"))
    assert ended.exit_code == 7
    assert 0 < len(ended.stdout) <= 16 << 20


async def test_exec_ends_though_a_child_holds_its_output(container: Container) -> None:
    script = copying(container, "echo hi; sleep 60 & echo $!; exit 7")
    code, out, _ = dataclasses.astuple(await container.run(script))
    assert code == 7
    assert out.startswith(b"hi\n")
    started = await container.start(script)
    async with asyncio.timeout(10):
        streamed = await output(started.program)
        assert await started.program.wait() == 7
    await started.program.close()
    assert streamed.startswith(b"hi\n")
    for pid in (out.split()[1], streamed.split()[1]):
        os.kill(int(pid), signal.SIGKILL)  # they run on


async def test_many_execs_start_on_one_inotify_instance(container: Container) -> None:
    def instances() -> int:
        links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        return sum("inotify" in link for link in links)

    before = instances()
    execs = container.execs(
        f'until [ -e {container.directory}/go ]; do sleep 0.05; done; echo 42 >"$3"; exit 5'
    )
    starting = [
        start(execs.start(container.target(), _PROCESS, stdin=False), name="start") for _ in range(20)
    ]
    async with asyncio.timeout(30):
        while len(execs._pidfiles._awaited) < 20:
            await asyncio.sleep(0.01)
        assert instances() == before + 1
        (container.directory / "go").touch()
        for started in await asyncio.gather(*starting):
            assert await started.program.wait() == 5
            await started.program.close()
