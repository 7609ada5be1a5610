"""Programs whose stdio we hold: pipes, or a terminal that they control.

Nothing is read before somebody asks for it, so a program that says much waits in its own write.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Sequence
from contextlib import ExitStack

from noderuntime.core import tasks
from noderuntime.core.errors import host_error
from noderuntime.node.host.base import STDERR, STDOUT
from noderuntime.node.host.process import readable, writable
from noderuntime.node.host.spawn import Child, Spawner, pipe

_CHUNK = 1 << 16
_LAST_WORDS = 1 << 20
"""Bytes that are still read once the program has ended: what others write after it is not its own."""
_HANGUP = 2.0
"""Seconds that a program has to end when its terminal was hung up."""


class HeldProgram:
    """See :class:`noderuntime.node.host.base.Program`."""

    def __init__(self, child: Child, stdin: int, outputs: dict[int, int], *, terminal: bool) -> None:
        self._child = child
        self._stdin = stdin
        self._outputs = outputs
        """The stream that each descriptor carries."""
        self._terminal = terminal
        self._left = _LAST_WORDS
        self._released = False
        for fd in (*outputs, *([stdin] if stdin >= 0 else ())):
            os.set_blocking(fd, False)

    async def read(self) -> tuple[int, bytes]:
        """Return what the program said next, also what it left when it ended."""
        await asyncio.sleep(0)  # a program that always has something to say would keep the loop for itself
        while self._outputs and self._left > 0:
            for fd, stream in tuple(self._outputs.items()):
                if data := self._read(fd):
                    self._outputs[fd] = self._outputs.pop(fd)  # the other one is next
                    return stream, data
            if self._over() or not self._outputs:
                break
            await self._news()
        return STDOUT, b""

    async def write(self, data: bytes) -> None:
        """Write to the program's stdin."""
        rest = memoryview(data)
        while rest:
            if self._stdin < 0:
                raise BrokenPipeError
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                await writable(self._stdin)
            except OSError as error:  # a terminal's is EIO
                raise BrokenPipeError from error

    def end_input(self) -> None:
        """Close the pipe that is the program's stdin."""
        if self._stdin >= 0 and not self._terminal:
            os.close(self._stdin)
            self._stdin = -1

    async def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; the kernel tells its foreground processes (SIGWINCH)."""
        if self._terminal:
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def ended(self) -> None:
        """Wait for the program's end."""
        await asyncio.wait([self._child.exited])

    async def wait(self) -> int:
        """Wait for the program's end and return its exit status."""
        await self.ended()
        return self._child.exited.result()

    def release(self) -> None:
        """Kill the program and keep its streams, which have not ended for that."""
        self._released = True
        self._child.kill()

    async def close(self) -> None:
        """Close everything; a program on a terminal gets SIGHUP, and is killed if it goes on."""
        for fd in (*self._outputs, *([self._stdin] if self._stdin >= 0 else ())):
            os.close(fd)
        self._outputs, self._stdin = {}, -1
        await tasks.finish(self._end(), name="end a program whose stdio was held")

    async def _end(self) -> None:
        if self._terminal and not self._released:
            await asyncio.wait([self._child.exited], timeout=_HANGUP)
        await self._child.end()

    def _over(self) -> bool:
        """Tell whether what is in the pipes is all that comes."""
        return self._child.exited.done() and not self._released

    def _read(self, fd: int) -> bytes:
        """Read what is there; nothing, for now or, when the descriptor is gone afterwards, for ever."""
        try:
            data = os.read(fd, min(_CHUNK, self._left))
        except BlockingIOError:
            return b""
        except OSError:  # EIO: the terminal has nobody on it any more
            data = b""
        if self._over():
            self._left -= len(data)
        if not data:
            del self._outputs[fd]
            os.close(fd)
        return data

    async def _news(self) -> None:
        """Wait until there is something to read, or the program has ended."""
        await readable(*self._outputs, until=None if self._released else self._child.exited)


async def converse(spawner: Spawner, argv: Sequence[str], *, stdin: bool, terminal: bool) -> HeldProgram:
    """Start the program; see :meth:`noderuntime.node.host.base.Host.converse`."""
    if terminal:
        return await _on_terminal(spawner, argv)
    with ExitStack() as theirs, ExitStack() as ours:
        input_read, input_write = pipe(theirs, ours) if stdin else (None, -1)
        out_read, out_write = pipe(ours, theirs)
        err_read, err_write = pipe(ours, theirs)
        child = await spawner.spawn(argv, stdin=input_read, stdout=out_write, stderr=err_write)
        ours.pop_all()
    return HeldProgram(child, input_write, {out_read: STDOUT, err_read: STDERR}, terminal=False)


async def _on_terminal(spawner: Spawner, argv: Sequence[str]) -> HeldProgram:
    with ExitStack() as theirs, ExitStack() as ours:
        try:
            master, slave = os.openpty()
            ours.callback(os.close, master)
            theirs.callback(os.close, slave)
            stdin = os.dup(master)
            ours.callback(os.close, stdin)
            name = os.ttyname(slave)
        except OSError as error:
            raise host_error("open a terminal", error) from error
        child = await spawner.spawn_on_terminal(argv, name)
        ours.pop_all()
    return HeldProgram(child, stdin, {master: STDOUT}, terminal=True)
