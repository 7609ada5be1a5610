"""Helpers for worker processes and growing blobs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from layer_archives import directory, entry, zipped

from noderuntime.node.host.process import identify, readable
from noderuntime.node.layers.growth import GrowingFile

CONTENT = os.urandom(700_000)
LAYER = zipped(
    directory("etc", 0o751), entry("etc/passwd", content=b"root"), entry("big/file", content=CONTENT)
)


class File:
    """A blob whose file is written as by a download. ``requested`` is set while a worker waits for more."""

    def __init__(self, directory: Path, content: bytes = LAYER, available: int | None = None) -> None:
        self.file = (directory / f"blob{id(self)}").open("w+b", buffering=0)
        self.content = content
        self.requested = asyncio.Event()
        self.growth = GrowingFile(self.file.fileno())
        self.write(len(content) if available is None else available)
        if available is None:
            self.growth.finish()

    def fileno(self) -> int:
        return self.growth.fileno()

    async def beyond(self, offset: int) -> tuple[int, bool]:
        if offset >= self.file.tell():
            self.requested.set()
        return await self.growth.beyond(offset)

    def write(self, end: int) -> None:
        self.file.write(self.content[self.file.tell() : end])
        self.growth.grew(end)
        self.requested.clear()


def templates() -> set[int]:
    """Return the PIDs of the template processes of this process."""
    command = b"noderuntime.node.layers.template"
    return {pid for pid in _children_of("self") if command in Path(f"/proc/{pid}/cmdline").read_bytes()}


def children() -> set[int]:
    """Return the PIDs of the worker processes of this process, without zombies."""
    workers = {pid for template in templates() for pid in _children_of(template)}
    return {pid for pid in workers if identify(pid)}


def _children_of(parent: int | str) -> set[int]:
    listed = Path(f"/proc/{parent}/task").glob("*/children")
    return {int(pid) for children in listed for pid in children.read_text().split()}


async def ended(pid: int) -> None:
    """Wait until a process has exited. It can still be a zombie."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        async with asyncio.timeout(10):
            await readable(pidfd)
    finally:
        os.close(pidfd)
