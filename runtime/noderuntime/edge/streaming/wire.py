"""The connection to a client: byte streams in both directions, with backpressure.

A client that has disconnected causes ConnectionError, in whichever call notices it first.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Protocol

_CHUNK = 1 << 16
_BUFFERED = 1 << 18
"""Bytes in the send buffer above which a write waits."""
_LINGER = 5.0
"""Seconds that a client has to close its side after the last data."""


class Wire(Protocol):
    """A byte stream in each direction."""

    async def read(self) -> bytes:
        """Return the next bytes; b"" after the client has disconnected."""

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client is slow."""

    async def finish(self) -> None:
        """Send the end of our data."""


class TcpWire:
    """A TCP connection, with or without TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._pending = b""
        self._last_use = time.monotonic()
        writer.transport.set_write_buffer_limits(_BUFFERED)

    def unread(self, data: bytes) -> None:
        """Return bytes that were read beyond the request, for the next read."""
        self._pending = data

    async def read(self) -> bytes:
        """Return the next bytes."""
        data, self._pending = self._pending or await self._reader.read(_CHUNK), b""
        self._last_use = time.monotonic()
        return data

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client is slow."""
        self._writer.write(data)
        await self._writer.drain()
        self._last_use = time.monotonic()

    async def finish(self) -> None:
        """Send the buffered data and the end of our data."""
        self._writer.transport.set_write_buffer_limits(high=1, low=0)  # drain() waits for an empty buffer
        await self._writer.drain()
        if self._writer.can_write_eof():
            try:
                self._writer.write_eof()
            except OSError as error:  # ENOTCONN: the client has already closed both sides
                raise ConnectionResetError("the client disconnected") from error

    def idle(self) -> float:
        """Return the seconds since the last read or write."""
        return time.monotonic() - self._last_use

    async def close(self) -> None:
        """Wait until the client has read all data and closed its side, then close ours."""
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
        """Close at once and drop unsent data."""
        self._writer.transport.abort()
