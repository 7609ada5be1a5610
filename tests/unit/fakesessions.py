"""Fakes of both ends of an exec, an attach or a port-forward."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator


class FakeConversation:
    """See noderuntime.node.host.base.Program: answers each input."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.said: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.heard = b""
        self.input_ended = False
        self.deaf = False
        self.size = (0, 0)
        self.closed = False

    def end(self) -> None:
        self.said.put_nowait((1, b""))

    async def read(self) -> tuple[int, bytes]:
        return await self.said.get()

    async def write(self, data: bytes) -> None:
        if self.deaf:
            raise BrokenPipeError
        self.heard += data
        self.said.put_nowait((1, b"heard " + data))

    def end_input(self) -> None:
        self.input_ended = True

    async def resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)

    async def ended(self) -> None:
        return None

    async def wait(self) -> int:
        return self.code

    async def close(self) -> None:
        self.closed = True


class FakeClient:
    """See noderuntime.core.sessions.Stdio."""

    def __init__(self) -> None:
        self.typed: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard: list[tuple[int, bytes]] = []
        self.resized: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.news = asyncio.Event()

    async def read(self) -> bytes:
        return await self.typed.get()

    async def write(self, stream: int, data: bytes) -> None:
        self.heard.append((stream, data))
        self.news.set()

    async def sizes(self) -> AsyncGenerator[tuple[int, int]]:
        while True:
            yield await self.resized.get()

    async def hears(self, *said: tuple[int, bytes]) -> None:
        async with asyncio.timeout(5):
            while self.heard != list(said):
                self.news.clear()
                await self.news.wait()
