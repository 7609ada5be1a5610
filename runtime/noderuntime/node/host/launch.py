"""Starts a program that daemonizes, with a pipe that holds it back and a pipe for its reply.

This is conmon's protocol: it reads a byte from one pipe before it forks, and writes a line with the
result to the other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from noderuntime.core import tasks
from noderuntime.core.errors import DeadlineExceeded, os_errors
from noderuntime.node.host.process import readable
from noderuntime.node.host.spawn import Child, Spawner, pipe


class GatedChild:
    """See :class:`noderuntime.node.host.base.Launched`."""

    def __init__(self, child: Child, gate: int, reply: int) -> None:
        self._child = child
        self._gate = gate
        self._reply = reply

    @property
    def pid(self) -> int:
        """The program's PID."""
        return self._child.pid

    async def release(self) -> None:
        """Write the byte that the program waits for."""
        with os_errors("release a launched program"):
            os.write(self._gate, b"\0")

    async def reply(self, *, timeout: float, limit: int = 1 << 16) -> bytes:
        """Return the first line of the reply, or all of it if the pipe is closed without a newline."""
        line = b""
        try:
            async with asyncio.timeout(timeout):
                while len(line) < limit and not line.endswith(b"\n"):
                    await readable(self._reply)
                    data = os.read(self._reply, limit)
                    if not data:
                        break
                    line += data
        except TimeoutError:
            raise DeadlineExceeded(f"the launched program did not reply within {timeout:g} s") from None
        return line.partition(b"\n")[0]

    async def daemonized(self, *, timeout: float) -> int:
        """Wait for the end of the program and return its exit status."""
        return await self._child.wait(timeout)

    async def close(self) -> None:
        """Kill the program if it has not ended, and close the pipes."""
        try:
            await tasks.finish(self._child.end(), name="end a launched program")
        finally:
            os.close(self._gate)
            os.close(self._reply)


async def launch(
    spawner: Spawner,
    argv: Sequence[str],
    *,
    gate: str,
    reply: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> GatedChild:
    """Start the program; see :meth:`noderuntime.node.host.base.Host.launch`."""
    with ExitStack() as own_ends, ExitStack() as child_ends:
        gate_read, gate_write = pipe(child_ends, own_ends)
        reply_read, reply_write = pipe(own_ends, child_ends)
        os.set_blocking(reply_read, False)
        environment = {**(os.environ if env is None else env), gate: str(gate_read), reply: str(reply_write)}
        child = await spawner.spawn(argv, env=environment, cwd=cwd, pass_fds=(gate_read, reply_write))
        own_ends.pop_all()
    return GatedChild(child, gate_write, reply_read)
