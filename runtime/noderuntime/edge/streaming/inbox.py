"""What has come for one stream and was not taken yet: little, for whoever delivers has to wait."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

_ROOM = 1 << 16
"""Bytes that may lie here when more is delivered; so at most that and one delivery do."""
_PATIENCE = 5.0
"""Seconds after which a deliverer that waits tries whether its client is still there."""


class Client(Protocol):
    """Whose data is delivered."""

    async def poke(self) -> None:
        """Send something that says nothing; once the client has left it fails, at the latest the next time.

        Nobody would notice otherwise: the end of its connection lies behind what is not read.
        """


class Inbox:
    """A queue of bytes with an end."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self.broken = False
        self._changed = asyncio.Event()

    async def deliver(self, data: bytes, client: Client) -> None:
        """Add data, as soon as there is room; ConnectionError when the client leaves before that."""
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
        """Say that no more comes; what is here can still be taken."""
        self._ended = True
        self._changed.set()

    def close(self) -> None:
        """Say that nobody takes anything any more: drop what is here and what will come."""
        self._waiting.clear()
        self.end()

    def break_off(self) -> None:
        """Say that the sender has gone, and drop what is here."""
        self.broken = True
        self.close()

    async def take(self) -> bytes:
        """Return what came next; no bytes at the end, ConnectionError when it was broken off."""
        while not self._waiting:
            if self.broken:
                raise ConnectionResetError("the client gave the stream up")
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._waiting.popleft()
        self._size -= len(data)
        self._changed.set()
        return data
