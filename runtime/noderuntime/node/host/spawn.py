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
from pathlib import Path

from noderuntime.core import tasks
from noderuntime.core.blocking import Lane
from noderuntime.core.errors import DeadlineExceeded, host_error
from noderuntime.node.host.base import Completed
from noderuntime.node.host.process import readable

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
        """Take what the ended program left in the pipe, close it and return what was kept.

        Not until end of file: a process that the program left running may hold the pipe for ever.
        """
        if self._fd >= 0:
            self._read()
        self.close()
        return b"".join(self._kept)

    def close(self) -> None:
        """Stop reading."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _PIPE_SIZE)
        except BlockingIOError:
            return
        if not data:
            self.close()
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
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for the exit status."""
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


class Child:
    """A program that we started; the leader of a process group of its own."""

    def __init__(self, process: subprocess.Popen[bytes] | _Spawned, name: str) -> None:
        self._process = process
        self._name = name
        self.pidfd = os.pidfd_open(process.pid)
        """Can be read when the program has ended; open until :meth:`reap`."""

    @property
    def pid(self) -> int:
        """Its PID, which is no other's until :meth:`wait` returned."""
        return self._process.pid

    async def wait(self, timeout: float) -> int:
        """Return the exit status (negative: killed by that signal).

        At the timeout, or when the caller is cancelled, the group is killed first.
        """
        try:
            async with asyncio.timeout(timeout):
                await readable(self.pidfd)
        except TimeoutError:
            raise DeadlineExceeded(f"{self._name} did not finish within {timeout:g} s") from None
        finally:
            status = self.reap()
        return status

    def reap(self) -> int:
        """Take the exit status, to be done once; if the program still runs its group is killed."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self.pidfd)
        return int(self._process.returncode or 0)


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
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        sinks = Sink(out_read, output_limit), Sink(err_read, output_limit)
        source = _as_file(stdin) if stdin else None
        try:
            try:
                child = await self.spawn(
                    argv,
                    stdin=source,
                    stdout=out_write,
                    stderr=err_write,
                    env=env,
                    cwd=cwd,
                    pass_fds=pass_fds,
                )
            finally:
                for fd in (out_write, err_write, *((source,) if source is not None else ())):
                    os.close(fd)
            status = await child.wait(timeout)
            return Completed(status, sinks[0].finish(), sinks[1].finish())
        finally:
            for sink in sinks:
                sink.close()

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

        def start() -> Child:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=subprocess.DEVNULL if stderr is None else stderr,
                env=env,
                cwd=cwd,
                pass_fds=pass_fds,
                start_new_session=True,
            )
            return Child(process, os.path.basename(argv[0]))

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

        def start() -> Child:
            pid = os.posix_spawnp(
                argv[0],
                list(argv),
                os.environ,
                file_actions=actions,
                setsid=True,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
            )
            return Child(_Spawned(pid), os.path.basename(argv[0]))

        return await self._start(start, argv[0])

    async def _start(self, start: Callable[[], Child], program: str) -> Child:
        starting = _STARTS.begin(start)
        try:
            await tasks.settle(starting)
            return starting.result()
        except OSError as error:
            raise host_error(f"run {program}", error) from error
        except asyncio.CancelledError:
            await _abandon(starting)
            raise


async def _abandon(starting: asyncio.Future[Child]) -> None:
    """End the program that a cancelled caller had started."""
    if not starting.cancelled() and starting.exception() is None:
        with_no_time = 0.0
        try:
            await starting.result().wait(with_no_time)
        except DeadlineExceeded:
            return


def _as_file(content: bytes) -> int:
    """Return a memory file to be a program's stdin: unlike a pipe it needs no writer."""
    fd = os.memfd_create("stdin")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
