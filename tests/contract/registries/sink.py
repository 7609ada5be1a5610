"""A sink in memory that records its use."""

from __future__ import annotations

import asyncio
import hashlib

from noderuntime.images.remote import Hash


class MemorySink:
    def __init__(self, held: bytes = b"", fail: Exception | None = None) -> None:
        self.content = bytearray(held)
        self.writes = 0
        self._fail = fail
        self._grown = asyncio.Condition()

    @property
    def offset(self) -> int:
        return len(self.content)

    async def hasher(self) -> Hash:
        return hashlib.sha256(self.content)

    async def write(self, data: bytes) -> None:
        if self._fail is not None:
            raise self._fail
        self.writes += 1
        self.content += data
        async with self._grown:
            self._grown.notify_all()

    async def holds(self, count: int) -> None:
        """Wait until it holds that many bytes."""
        async with self._grown:
            await self._grown.wait_for(lambda: len(self.content) >= count)
