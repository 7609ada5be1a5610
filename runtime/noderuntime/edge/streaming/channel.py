"""The transport of a session, independent of its protocol: a SPDY stream or a channel of a WebSocket."""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """One byte stream in each direction."""

    async def read(self) -> bytes:
        """Return the next bytes; b"" at the end, ConnectionError after the client's reset."""

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client is slow. Dropped if the client no longer reads."""

    async def finish(self) -> None:
        """Send the end of our data."""

    def ignore(self) -> None:
        """Drop all further data of the client."""


class Link(Protocol):
    """A client's connection, divided into channels."""

    async def run(self) -> None:
        """Deliver received data until the client disconnects. ConnectionError if it violates the protocol."""

    async def finish(self) -> None:
        """Send the end of the session."""
