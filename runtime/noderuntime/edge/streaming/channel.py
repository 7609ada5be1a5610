"""What a session is served through, whatever carries it: a SPDY stream or a channel of a WebSocket."""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """One stream of bytes each way."""

    async def read(self) -> bytes:
        """Return what came next; no bytes at its end, ConnectionError when the client gave it up."""

    async def write(self, data: bytes) -> None:
        """Send, as slowly as the client takes it; dropped when the client wants no more of it."""

    async def finish(self) -> None:
        """Say that we have sent all."""

    def ignore(self) -> None:
        """Drop what still comes: nobody will read it."""


class Link(Protocol):
    """A client's connection, cut into channels."""

    async def run(self) -> None:
        """Hand out what comes until the client leaves; ConnectionError when it breaks the protocol."""

    async def finish(self) -> None:
        """Say that the session is over."""
