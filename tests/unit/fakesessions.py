"""Fakes of both ends of an exec, an attach or a port-forward."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator


class FakeConversation:
    """See noderuntime.node.host.base.Program: answers each input."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.output: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.received = b""
        self.input_ended = False
        self.reads_nothing = False
        self.size = (0, 0)
        self.closed = False

    def end(self) -> None:
        self.output.put_nowait((1, b""))

    async def read(self) -> tuple[int, bytes]:
        return await self.output.get()

    async def write(self, data: bytes) -> None:
        if self.reads_nothing:
            raise BrokenPipeError
        self.received += data
        self.output.put_nowait((1, b"echo " + data))

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
        self.input: asyncio.Queue[bytes] = asyncio.Queue()
        self.received: list[tuple[int, bytes]] = []
        self.resized: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.changed = asyncio.Event()

    async def read(self) -> bytes:
        return await self.input.get()

    async def write(self, stream: int, data: bytes) -> None:
        self.received.append((stream, data))
        self.changed.set()

    async def sizes(self) -> AsyncGenerator[tuple[int, int]]:
        while True:
            yield await self.resized.get()

    async def receives(self, *output: tuple[int, bytes]) -> None:
        async with asyncio.timeout(5):
            while self.received != list(output):
                self.changed.clear()
                await self.changed.wait()
