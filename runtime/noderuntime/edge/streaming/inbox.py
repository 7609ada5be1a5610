"""A bounded queue for the received data of one stream. The sender waits while it is full."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

_ROOM = 1 << 16
"""Bytes in the queue above which a delivery waits, so at most this and one delivery are queued."""
_PATIENCE = 5.0
"""Seconds after which a waiting delivery checks whether the client is still connected."""


class Client(Protocol):
    """The client whose data is delivered."""

    async def poke(self) -> None:
        """Send a keepalive. If the client has disconnected, this or a later call fails.

        Otherwise its disconnect would not be noticed: the end of the connection is behind unread data.
        """


class Inbox:
    """A byte queue with an end."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self.broken = False
        self._changed = asyncio.Event()

    async def deliver(self, data: bytes, client: Client) -> None:
        """Append data when there is room. ConnectionError if the client disconnects before."""
        while self._size >= _ROOM and not self._ended:
            self._changed.clear()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._changed.wait()
            except TimeoutError:
                await client.poke()
        if data and not self._ended:
            self._waiting.append(data)
            self._size += len(data)
            self._changed.set()

    def end(self) -> None:
        """Mark the end of the data. Queued data can still be taken."""
        self._ended = True
        self._changed.set()

    def close(self) -> None:
        """Stop reading: drop the queued data and all further data."""
        self._waiting.clear()
        self.end()

    def reset(self) -> None:
        """Mark the stream as reset by the sender, and drop the queued data."""
        self.broken = True
        self.close()

    async def take(self) -> bytes:
        """Return the next bytes; b"" at the end, ConnectionError after a reset."""
        while not self._waiting:
            if self.broken:
                raise ConnectionResetError("the client reset the stream")
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._waiting.popleft()
        self._size -= len(data)
        self._changed.set()
        return data
