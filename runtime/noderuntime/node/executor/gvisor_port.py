"""Connections into a gVisor sandbox: a small program inside connects, and copies to and from our pipes.

It is busybox's nc, in the root container, beside pause. runsc only starts it: the sandbox has the pipes then,
so runsc is let go and no process of the node is left. (``runsc port-forward`` would need no program inside,
but loses bytes when the pod is slow, and ends both ways when one ends.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from noderuntime.core.errors import Unavailable
from noderuntime.node.host.base import STDERR, Program
from noderuntime.node.host.words import one_line

_NC = ("/busybox", "nc", "127.0.0.1")
_NOBODY = 65534
_LONGEST_WORDS = 1 << 10


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
        self._heard = self._ended = False
        self._words = b""
        program.release()

    async def read(self) -> tuple[int, bytes]:
        """Return what came next; Unavailable when nothing did and the program inside says why."""
        while True:
            stream, data = await self._program.read()
            self._ended = not data
            if stream == STDERR and data:
                self._words = (self._words + data)[:_LONGEST_WORDS]
            elif data or self._heard or not self._words:
                self._heard = True
                return stream, data
            else:
                words = one_line(self._words.decode(errors="replace"))
                raise Unavailable(f"connect to port {self._port}: {words}")

    async def write(self, data: bytes) -> None:
        """Send."""
        await self._program.write(data)

    def end_input(self) -> None:
        """Say that we have sent all."""
        self._program.end_input()

    async def resize(self, rows: int, columns: int) -> None:
        """There is no terminal."""

    async def close(self) -> None:
        """Close it, and end the program inside, which might wait for the pod for ever."""
        await self._program.close()
        if not self._ended:
            await self._kill()
