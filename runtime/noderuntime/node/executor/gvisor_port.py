"""Connections into a gVisor sandbox: a program inside it connects and copies between socket and stdio.

It is busybox's nc, in the root container, beside pause. runsc only starts it and hands the pipes over to the
sandbox, so runsc is killed then and no process remains on the node. ``runsc port-forward`` needs no program
in the sandbox, but it loses bytes if the pod is slow, and closes both directions if one is closed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from noderuntime.core.errors import Unavailable
from noderuntime.node.host.base import STDERR, Program
from noderuntime.node.host.messages import one_line

_NC = ("/busybox", "nc", "127.0.0.1")
_NOBODY = 65534
_MESSAGE_LIMIT = 1 << 10


def connecting_process(port: int) -> dict[str, Any]:
    """Return the OCI process that connects to a port of the sandbox's localhost."""
    return {
        "user": {"uid": _NOBODY, "gid": _NOBODY},
        "args": [*_NC, str(port)],
        "env": [],
        "cwd": "/",
        "noNewPrivileges": True,
    }


class SandboxConnection:
    """See :class:`noderuntime.node.host.base.Conversation`."""

    def __init__(self, program: Program, port: int, kill: Callable[[], Awaitable[None]]) -> None:
        self._program = program
        self._port = port
        self._kill = kill
        self._received = self._ended = False
        self._message = b""
        program.release()

    async def read(self) -> tuple[int, bytes]:
        """Return the next data. Unavailable, with nc's error message, if the connection failed."""
        while True:
            stream, data = await self._program.read()
            self._ended = not data
            if stream == STDERR and data:
                self._message = (self._message + data)[:_MESSAGE_LIMIT]
            elif data or self._received or not self._message:
                self._received = True
                return stream, data
            else:
                message = one_line(self._message.decode(errors="replace"))
                raise Unavailable(f"connect to port {self._port}: {message}")

    async def write(self, data: bytes) -> None:
        """Send data. BrokenPipeError if the program inside has ended."""
        await self._program.write(data)

    def end_input(self) -> None:
        """Close the program's stdin, which ends the sending direction."""
        self._program.end_input()

    async def resize(self, rows: int, columns: int) -> None:
        """Do nothing: there is no terminal."""

    async def close(self) -> None:
        """Close the connection and kill the program inside, which could wait for the pod forever."""
        await self._program.close()
        if not self._ended:
            await self._kill()
