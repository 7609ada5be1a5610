"""Running programs without ever blocking the event loop.

A few threads do nothing but ``vfork`` and ``exec``, so that the loop does not stand
still meanwhile. The end of a program is an event on its pidfd, its output an
event on a pipe: no thread sleeps for them. There is no ``preexec_fn``: it would
force a slow fork of the whole daemon.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from noderuntime.core import log, tasks
from noderuntime.core.blocking import Lane
from noderuntime.core.errors import DeadlineExceeded, os_errors
from noderuntime.node.host.base import Completed

_log = log.get(__name__)

_END_SECONDS = 5.0
"""How long a killed program is awaited; it may hang in the kernel."""
_POLL_SECONDS = 0.1
_PIPE_SIZE = 1 << 16
"""What a pipe holds, and so all that an ended program can have left in it."""


class Sink:
    """One output stream: read as it comes, kept up to a limit, dropped beyond."""

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self._room = limit
        self._kept: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def finish(self) -> bytes:
        """Read what the ended program left in the pipe and return what was kept.

        Not until end of file: a process that the program left running may hold the pipe forever.
        """
        self._read()
        return b"".join(self._kept)

    def stop(self) -> None:
        """Stop reading; the descriptor stays open."""
        self._loop.remove_reader(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _PIPE_SIZE)
        except BlockingIOError:
            return
        if not data:
            self.stop()
        elif self._room > 0:
            self._kept.append(data[: self._room])
            self._room -= len(data)


class _Spawned:
    """What ``subprocess.Popen`` is to its program, for one that posix_spawn(3) started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status if there is one."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


_Process = subprocess.Popen[bytes] | _Spawned


class Child:
    """A program that we started; the leader of a process group of its own.

    The event loop reaps it whenever it ends, so nothing ever waits for it in a system call: a program
    that hangs in the kernel ignores SIGKILL for as long as it does.
    """

    def __init__(self, process: _Process, name: str) -> None:
        self._process = process
        self._name = name
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """The exit status (negative: killed by that signal)."""
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except OSError:
            self.kill()
            self._poll()
            raise
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """Its PID, which no other process gets before :attr:`exited` is done."""
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL to the process group, unless the program has ended."""
        if not self.exited.done():
            os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill the process group, and wait for the program's end for at most five seconds."""
        self.kill()
        await asyncio.wait([self.exited], timeout=_END_SECONDS)
        if not self.exited.done():
            _log.warning("killed program does not end", program=self._name, pid=self.pid)

    async def wait(self, timeout: float) -> int:
        """Return the exit status (negative: killed by that signal).

        At the timeout (seconds), and when the caller is cancelled, end the process group first.
        """
        try:
            await asyncio.wait([self.exited], timeout=timeout)
        finally:
            in_time = self.exited.done()
            if not in_time:
                await tasks.finish(self.end(), name=f"end {self._name}")
        if not in_time:
            raise DeadlineExceeded(f"{self._name} did not finish within {timeout:g} s")
        return self.exited.result()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._poll()

    def _poll(self) -> None:
        """Take the exit status. While a debugger holds an ended program there is none yet: look again."""
        status = self._process.poll()
        if status is None:
            self._loop.call_later(_POLL_SECONDS, self._poll)
        else:
            self.exited.set_result(status)


_STARTS = Lane("spawn", 4)


class Spawner:
    """Starts programs."""

    async def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output_limit: int = 1 << 20,
        pass_fds: Sequence[int] = (),
    ) -> Completed:
        """Run a program to its end; see :meth:`noderuntime.node.host.base.Host.run`."""
        with ExitStack() as ours:
            with ExitStack() as theirs:
                out, stdout = _output(ours, theirs, output_limit)
                err, stderr = _output(ours, theirs, output_limit)
                source = _as_file(stdin, theirs) if stdin else None
                child = await self.spawn(
                    argv, stdin=source, stdout=stdout, stderr=stderr, env=env, cwd=cwd, pass_fds=pass_fds
                )
            status = await child.wait(timeout)
            return Completed(status, out.finish(), err.finish())

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a program; streams that are not given are ``/dev/null``. HostError when it cannot be run."""

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=subprocess.DEVNULL if stderr is None else stderr,
                env=env,
                cwd=cwd,
                pass_fds=pass_fds,
                start_new_session=True,
            )

        return await self._start(start, argv[0])

    async def spawn_on_terminal(self, argv: Sequence[str], terminal: str) -> Child:
        """Start a program as the leader of a session whose controlling terminal is that device.

        A session leader gets it by opening it first (tty_ioctl(4)); posix_spawn(3) can do that, Popen cannot.
        """
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]

        def start() -> _Spawned:
            pid = os.posix_spawnp(
                argv[0],
                list(argv),
                os.environ,
                file_actions=actions,
                setsid=True,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
            )
            return _Spawned(pid)

        return await self._start(start, argv[0])

    async def _start(self, start: Callable[[], _Process], program: str) -> Child:
        starting = _STARTS.begin(start)
        name = os.path.basename(program)
        with os_errors(f"run {program}"):
            try:
                await tasks.settle(starting)
            except asyncio.CancelledError:
                if starting.exception() is None:
                    await tasks.finish(Child(starting.result(), name).end(), name=f"end {name}")
                raise
            return Child(starting.result(), name)


def pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Return the ends of a new pipe, each closed by the stack of who has it."""
    with os_errors("make a pipe"):
        ends = os.pipe2(os.O_CLOEXEC)
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    return ends


def _output(ours: ExitStack, theirs: ExitStack, limit: int) -> tuple[Sink, int]:
    """Return a sink, and the end of its pipe that a program writes to."""
    read, write = pipe(ours, theirs)
    sink = Sink(read, limit)
    ours.callback(sink.stop)
    return sink, write


def _as_file(content: bytes, stack: ExitStack) -> int:
    """Return a memory file to be a program's stdin: unlike a pipe it needs no writer."""
    with os_errors("write a program's input"):
        fd = os.memfd_create("stdin")
        stack.callback(os.close, fd)
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
    return fd
