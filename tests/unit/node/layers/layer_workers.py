"""Worker processes, and blobs that grow under their hands."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from layer_archives import directory, entry, zipped

from noderuntime.node.host.process import identify, readable
from noderuntime.node.layers.growth import Growth

CONTENT = os.urandom(700_000)
LAYER = zipped(
    directory("etc", 0o751), entry("etc/passwd", content=b"root"), entry("big/file", content=CONTENT)
)


class File:
    """A blob whose file is written as a download would, and that tells when it is waited for."""

    def __init__(self, directory: Path, content: bytes = LAYER, there: int | None = None) -> None:
        self.file = (directory / f"blob{id(self)}").open("w+b", buffering=0)
        self.content = content
        self.asked = asyncio.Event()
        self.growth = Growth(self.file.fileno())
        self.write(len(content) if there is None else there)
        if there is None:
            self.growth.finish()

    def fileno(self) -> int:
        return self.growth.fileno()

    async def beyond(self, offset: int) -> tuple[int, bool]:
        if offset >= self.file.tell():
            self.asked.set()
        return await self.growth.beyond(offset)

    def write(self, end: int) -> None:
        self.file.write(self.content[self.file.tell() : end])
        self.growth.grew(end)
        self.asked.clear()


def templates() -> set[int]:
    """The processes that our workers are forked from."""
    command = b"noderuntime.node.layers.template"
    return {pid for pid in _children_of("self") if command in Path(f"/proc/{pid}/cmdline").read_bytes()}


def children() -> set[int]:
    """Our worker processes, but for those that ended and are only to be buried."""
    workers = {pid for template in templates() for pid in _children_of(template)}
    return {pid for pid in workers if identify(pid)}


def _children_of(parent: int | str) -> set[int]:
    listed = Path(f"/proc/{parent}/task").glob("*/children")
    return {int(pid) for children in listed for pid in children.read_text().split()}


async def ended(pid: int) -> None:
    """Wait until a process is gone, or only its parent has not taken note yet."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        async with asyncio.timeout(10):
            await readable(pidfd)
    finally:
        os.close(pidfd)
