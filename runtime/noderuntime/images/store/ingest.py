"""Writes a compressed layer to a file while it is downloaded, and lets an unpacker read it meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from noderuntime.core import tasks
from noderuntime.core.blocking import IMAGES, on_files
from noderuntime.core.errors import NoderuntimeError, file_error
from noderuntime.images.remote import Hash
from noderuntime.node.layers.growth import GrowingFile

_BATCH = 512 << 10
"""Bytes per write: a switch to another thread costs as much as writing some ten thousand bytes."""
_BLOCK = 1 << 20


class Ingest:
    """A :class:`noderuntime.images.remote.Sink` whose bytes an unpacker reads through :attr:`growth`.

    While one batch is written the next one is collected, so memory holds at most two.
    """

    def __init__(self, path: Path, size: int, *, restart: bool) -> None:
        """Open the file of an earlier pull, or create it. Blocks.

        ``restart`` truncates it. So does a length above ``size``: then it is not a prefix of the layer.
        """
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        held = os.fstat(self._fd).st_size
        if restart or held > size:
            os.ftruncate(self._fd, 0)
            held = 0
        self._reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.resumed = held
        """Bytes that an earlier pull left."""
        self.growth = GrowingFile(self._reader, held)
        self._written = held
        self._gathered: list[bytes] = []
        self._waiting = 0
        self._writing: asyncio.Future[None] | None = None

    @property
    def offset(self) -> int:
        """Bytes received so far."""
        return self._written + self._waiting

    async def hasher(self) -> Hash:
        """Return the SHA-256 state of the bytes that an earlier pull left."""
        return await on_files(f"read {self._path}", self._hash)

    async def write(self, data: bytes) -> None:
        """Append bytes. ResourceExhausted if the disk is full."""
        self._gathered.append(data)
        self._waiting += len(data)
        if self._waiting >= _BATCH:
            await self._settle()
            self._flush()

    async def finish(self) -> None:
        """Write the last batch and mark the file as complete for its readers."""
        await self._settle()
        self._flush()
        await self._settle()
        self.growth.finish()

    async def close(self) -> None:
        """Wait for the write in progress and close the file."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
            with suppress(NoderuntimeError):  # the writer received the error or was cancelled
                self._writing.result()
        os.close(self._fd)
        os.close(self._reader)

    async def _settle(self) -> None:
        if self._writing is not None:
            await tasks.settle(self._writing)
            self._writing.result()
            self._writing = None

    def _flush(self) -> None:
        if self._gathered:
            self._writing = tasks.start(self._write(self._gathered), name="write a layer")
            self._gathered = []

    async def _write(self, batch: list[bytes]) -> None:
        try:
            await IMAGES.run(_write_all, self._fd, batch, self._written)
        except OSError as error:
            raise file_error(f"write {self._path}", error) from error
        size = sum(map(len, batch))
        self._written += size
        self._waiting -= size
        self.growth.grew(self._written)

    def _hash(self) -> Hash:
        state = hashlib.sha256()
        at = 0
        while block := os.pread(self._reader, min(_BLOCK, self.resumed - at), at):
            state.update(block)
            at += len(block)
        return state


def _write_all(fd: int, batch: list[bytes], offset: int) -> None:
    """Write all bytes at an offset. Chunks have about 64 KiB, so one call usually writes all."""
    data: list[bytes | memoryview] = list(batch)
    while data:
        written = os.pwritev(fd, data[:512], offset)
        offset += written
        while data and written >= len(data[0]):
            written -= len(data.pop(0))
        if data and written:
            data[0] = memoryview(data[0])[written:]
