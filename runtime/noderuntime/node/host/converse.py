"""Programs whose stdio the daemon holds: pipes, or a controlling terminal.

Output is only read on request, so a program blocks in write(2) while its output is not read.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from typing import Any

from noderuntime.core import tasks
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import host_error
from noderuntime.node.host.base import STDERR, STDOUT
from noderuntime.node.host.pipes import end_copies, is_idle
from noderuntime.node.host.process import readable, writable
from noderuntime.node.host.spawn import Child, Spawner, pipe

_CHUNK = 1 << 16
_LAST_OUTPUT = 1 << 20
"""The limit of bytes that are read after the end. Other writers can keep the pipe open."""
_LAST_COPY = 0.1
"""The time that a program has to copy the last output of an ended process, and to end, in seconds."""
_HANGUP = 2.0
"""The time that a program has to end after its terminal was hung up, in seconds."""


class HeldProgram:
    """See :class:`noderuntime.node.host.base.Program`."""

    def __init__(self, child: Child, stdin: int, outputs: dict[int, int], *, terminal: bool) -> None:
        self._child = child
        self._stdin = stdin
        self._outputs = outputs
        """The stream of each descriptor: STDOUT or STDERR."""
        self._terminal = terminal
        self._left = _LAST_OUTPUT
        self._released = self._outlasted = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the program has ended, or the process whose output it copies."""
        child.exited.add_done_callback(self._end_output)
        self._followed: asyncio.Task[Any] | None = None
        for fd in (*outputs, *([stdin] if stdin >= 0 else ())):
            os.set_blocking(fd, False)

    async def read(self) -> tuple[int, bytes]:
        """Return the next output, including the output that is left in the pipes at the program's end."""
        await asyncio.sleep(0)  # otherwise a program that always has output would starve other tasks
        while self._outputs and self._left > 0:
            for fd, stream in tuple(self._outputs.items()):
                if data := self._read(fd):
                    self._outputs[fd] = self._outputs.pop(fd)  # read the other stream next
                    return stream, data
            if self._is_complete() or not self._outputs:
                break
            await self._wait_for_output()
        self._outlasted |= self._left <= 0
        return STDOUT, b""

    async def write(self, data: bytes) -> None:
        """Write to the program's stdin. BrokenPipeError if it is closed."""
        rest = memoryview(data)
        while rest:
            if self._stdin < 0:
                raise BrokenPipeError
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                await writable(self._stdin)
            except OSError as error:  # EPIPE, or EIO for a terminal
                raise BrokenPipeError from error

    def end_input(self) -> None:
        """Close the pipe that is the program's stdin."""
        if self._stdin >= 0 and not self._terminal:
            os.close(self._stdin)
            self._stdin = -1

    async def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size. The kernel sends SIGWINCH to its foreground processes."""
        if self._terminal:
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def ended(self) -> None:
        """Wait for the program's end."""
        await asyncio.wait([self._child.exited])

    async def wait(self) -> int:
        """Wait for the program's end and return its exit status."""
        if self._outlasted and not self._child.exited.done():
            self._close_outputs()
            await FILES.run(end_copies, self._child.pid)
        await self.ended()
        return self._child.exited.result()

    def follow(self, end: Coroutine[Any, Any, object]) -> None:
        """End the output and the program soon after the process whose output it copies has ended."""
        self._followed = tasks.start(end, name="await the end of a process with held stdio")
        self._followed.add_done_callback(self._end_output)

    def release(self) -> None:
        """Kill the program and keep its streams, which another process has inherited."""
        self._released = True
        self._child.kill()

    async def close(self) -> None:
        """Close the streams and kill the program. On a terminal it gets SIGHUP and 2 s to end first."""
        self._close_outputs()
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        await tasks.finish(self._end(), name="end a program whose stdio was held")

    def _close_outputs(self) -> None:
        for fd in self._outputs:
            os.close(fd)
        self._outputs = {}

    def _end_output(self, ended: asyncio.Future[Any]) -> None:
        if not (self._over.done() or ended.cancelled() or ended.exception()):
            self._over.set_result(None)

    async def _end(self) -> None:
        if self._followed is not None:
            self._followed.cancel()
            await tasks.settle(self._followed)
        if self._terminal and not self._released:
            await asyncio.wait([self._child.exited], timeout=_HANGUP)
        await self._child.end()

    def _is_complete(self) -> bool:
        """Return whether the pipes contain all of the output, because the program has ended."""
        return self._outlasted or (self._child.exited.done() and not self._released)

    def _read(self, fd: int) -> bytes:
        """Return the available output. At end of file, remove and close the descriptor."""
        try:
            data = os.read(fd, min(_CHUNK, self._left))
        except BlockingIOError:
            return b""
        except OSError:  # EIO: no process has the terminal open
            data = b""
        if self._over.done() and not self._released:
            self._left -= len(data)
        if not data:
            del self._outputs[fd]
            os.close(fd)
        return data

    async def _wait_for_output(self) -> None:
        """Wait until there is output, or it is over."""
        if self._released or not self._over.done():
            await readable(*self._outputs, until=None if self._released else self._over)
            return
        try:
            async with asyncio.timeout(_LAST_COPY):
                await readable(*self._outputs, until=self._child.exited)
        except TimeoutError:
            self._outlasted = await FILES.run(is_idle, self._child.pid)


async def converse(spawner: Spawner, argv: Sequence[str], *, stdin: bool, terminal: bool) -> HeldProgram:
    """Start the program; see :meth:`noderuntime.node.host.base.Host.converse`."""
    if terminal:
        return await _on_terminal(spawner, argv)
    with ExitStack() as child_ends, ExitStack() as own_ends:
        input_read, input_write = pipe(child_ends, own_ends) if stdin else (None, -1)
        out_read, out_write = pipe(own_ends, child_ends)
        err_read, err_write = pipe(own_ends, child_ends)
        child = await spawner.spawn(argv, stdin=input_read, stdout=out_write, stderr=err_write)
        own_ends.pop_all()
    return HeldProgram(child, input_write, {out_read: STDOUT, err_read: STDERR}, terminal=False)


async def _on_terminal(spawner: Spawner, argv: Sequence[str]) -> HeldProgram:
    with ExitStack() as child_ends, ExitStack() as own_ends:
        try:
            master, slave = os.openpty()
            own_ends.callback(os.close, master)
            child_ends.callback(os.close, slave)
            stdin = os.dup(master)
            own_ends.callback(os.close, stdin)
            name = os.ttyname(slave)
        except OSError as error:
            raise host_error("open a terminal", error) from error
        child = await spawner.spawn_on_terminal(argv, name)
        own_ends.pop_all()
    return HeldProgram(child, stdin, {master: STDOUT}, terminal=True)
