"""Runs programs without blocking the event loop.

A few threads only run ``vfork`` and ``exec``, because these block. The end of a program is an event
on its pidfd, and its output is an event on a pipe, so no thread waits for them. ``preexec_fn`` is
not used, because it requires a slow fork of the whole daemon.
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
from noderuntime.node.host import open_files
from noderuntime.node.host.base import Completed

_log = log.get(__name__)

_END_SECONDS = 5.0
"""How long to wait for the end of a killed program, which can hang in the kernel."""
_POLL_SECONDS = 0.1
_PIPE_SIZE = 1 << 16
"""The capacity of a pipe, which limits the output that an ended program leaves in it."""


class Sink:
    """An output stream that is read as it arrives, kept up to a limit in bytes, and discarded beyond."""

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self._room = limit
        self._kept: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def finish(self) -> bytes:
        """Read the output that the ended program left in the pipe, and return all that was kept.

        Does not wait for end of file: a process that the program left running can keep the pipe open.
        """
        self._read()
        return b"".join(self._kept)

    def stop(self) -> None:
        """Stop reading. The descriptor stays open."""
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
    """A program that posix_spawn(3) started, with the interface of ``subprocess.Popen``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None if the program has not ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


_Process = subprocess.Popen[bytes] | _Spawned


class Child:
    """A child process, which leads its own process group.

    The event loop reaps it when it ends, and no system call waits for it: a program that hangs in the kernel
    does not end on SIGKILL.
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
        open_files.give(process.pid)

    @property
    def pid(self) -> int:
        """The PID, which is not reused before :attr:`exited` is done."""
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL to the process group, unless the program has ended."""
        if not self.exited.done():
            os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill the process group, and wait at most 5 s for the program's end."""
        self.kill()
        await asyncio.wait([self.exited], timeout=_END_SECONDS)
        if not self.exited.done():
            _log.warning("killed program has not ended", program=self._name, pid=self.pid)

    async def wait(self, timeout: float) -> int:
        """Wait for the program's end and return the exit status (negative: killed by that signal).

        If cancelled or after ``timeout`` seconds, kill the process group. DeadlineExceeded at the timeout.
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
        """Set the exit status. It is not available while a debugger traces the ended program: retry."""
        status = self._process.poll()
        if status is None:
            self._loop.call_later(_POLL_SECONDS, self._poll)
        else:
            self.exited.set_result(status)


_STARTS = Lane("spawn", 4)


class Spawner:
    """Starts programs in a few threads."""

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
        with ExitStack() as own_ends:
            with ExitStack() as child_ends:
                out, stdout = _output(own_ends, child_ends, output_limit)
                err, stderr = _output(own_ends, child_ends, output_limit)
                source = _as_file(stdin, child_ends) if stdin else None
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
        """Start a program. Omitted streams are ``/dev/null``. HostError if it cannot be executed."""

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
        """Start a program as the leader of a session, with a device as its controlling terminal.

        A session leader acquires the first terminal that it opens. posix_spawn(3) can open it, Popen cannot.
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
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores these signals
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
    """Return the read and write ends of a new pipe, which the stacks ``reader`` and ``writer`` close."""
    with os_errors("make a pipe"):
        ends = os.pipe2(os.O_CLOEXEC)
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    return ends


def _output(own_ends: ExitStack, child_ends: ExitStack, limit: int) -> tuple[Sink, int]:
    """Return a sink, and the write end of its pipe for a program."""
    read, write = pipe(own_ends, child_ends)
    sink = Sink(read, limit)
    own_ends.callback(sink.stop)
    return sink, write


def _as_file(content: bytes, stack: ExitStack) -> int:
    """Return a memfd with the content, for a program's stdin. Unlike a pipe it needs no writer."""
    with os_errors("write a program's input"):
        fd = os.memfd_create("stdin")
        stack.callback(os.close, fd)
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
    return fd
