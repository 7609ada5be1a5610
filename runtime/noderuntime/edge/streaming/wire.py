"""The connection to a client: bytes in both directions, as slowly as the other side is.

A client that has left shows as ConnectionError, wherever that is noticed first.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Protocol

_CHUNK = 1 << 16
_BUFFERED = 1 << 18
"""Bytes that may wait to be sent before whoever writes has to wait as well."""
_LINGER = 5.0
"""Seconds that a client has to close its side when all has been said."""


class Wire(Protocol):
    """A stream of bytes each way."""

    async def read(self) -> bytes:
        """Return what came next; no bytes when the client has left."""

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client is slow."""

    async def finish(self) -> None:
        """Say that nothing more will come."""


class TcpWire:
    """A TCP connection, with or without TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._pending = b""
        self._last_use = time.monotonic()
        writer.transport.set_write_buffer_limits(_BUFFERED)

    def unread(self, data: bytes) -> None:
        """Put back what was read too much."""
        self._pending = data

    async def read(self) -> bytes:
        """Return what came next."""
        data, self._pending = self._pending or await self._reader.read(_CHUNK), b""
        self._last_use = time.monotonic()
        return data

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client is slow."""
        self._writer.write(data)
        await self._writer.drain()
        self._last_use = time.monotonic()

    async def finish(self) -> None:
        """Send what is left and say that nothing more will come."""
        self._writer.transport.set_write_buffer_limits(high=1, low=0)  # drain until nothing waits here
        await self._writer.drain()
        if self._writer.can_write_eof():
            try:
                self._writer.write_eof()
            except OSError as error:  # ENOTCONN: the client has closed both sides by now
                raise ConnectionResetError("the client left") from error

    def idle(self) -> float:
        """Return the seconds since something went through."""
        return time.monotonic() - self._last_use

    async def close(self) -> None:
        """Let the client read what is under way and close its side, then close ours."""
        with suppress(OSError):
            async with asyncio.timeout(_LINGER):
                while await self._reader.read(_CHUNK):
                    pass
        self._writer.close()
        with suppress(OSError):
            async with asyncio.timeout(_LINGER):
                await self._writer.wait_closed()
        self.abort()

    def abort(self) -> None:
        """Close at once; what is still unsent is lost."""
        self._writer.transport.abort()
