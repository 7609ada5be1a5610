"""A worker's job: unpack one layer from its compressed bytes into a directory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing

from noderuntime.core.errors import DataLoss, host_error
from noderuntime.node.layers.decompress import BLOCK, decompressed
from noderuntime.node.layers.readahead import read_ahead
from noderuntime.node.layers.room import Room
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar.limits import Limits, Unpacked
from noderuntime.node.layers.unpack import Unpacking

More = Callable[[int], tuple[int, bool]]
"""Waits until the file is larger than the argument, or complete. Returns (size, complete)."""


def unpack(fd: int, more: More, target: str, limits: Limits) -> Unpacked:
    """Unpack a layer into an empty directory.

    Raises the errors of :meth:`Unpacking.run`, DataLoss if the file is shorter than ``more``
    returned, and OSError if the directory does not exist.
    """
    source = Source(fd, more)
    measured = Measured(source, Room(target, limits))
    with closing(read_ahead(measured)) as blocks:
        unpacking = Unpacking(Stream(blocks), target, limits)
        unpacking.run()
    return Unpacked(
        diff_id=measured.digest,
        digest=source.digest,
        size=measured.size,
        entries=unpacking.entries,
        implied=unpacking.implied,
        opaque=unpacking.opaque,
    )


class Source:
    """An iterable of the compressed bytes of a growing file. It does not move the descriptor's position."""

    def __init__(self, fd: int, more: More) -> None:
        self._fd = fd
        self._more = more
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes read so far."""

    @property
    def digest(self) -> str:
        """The digest of the bytes read so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes in blocks, to the end of the complete file."""
        available, complete = 0, False
        while True:
            while self.size < available:
                chunk = self._read(min(BLOCK, available - self.size))
                if not chunk:
                    raise DataLoss(f"the layer's file ends after {self.size} of {available} bytes")
                self._hash.update(chunk)
                self.size += len(chunk)
                yield chunk
            if complete:
                return
            available, complete = self._more(self.size)

    def _read(self, count: int) -> bytes:
        try:
            return os.pread(self._fd, count, self.size)
        except OSError as error:
            raise host_error("read a layer", error) from error


class Measured:
    """An iterable of the uncompressed archive that hashes it and enforces the limits on its size."""

    def __init__(self, source: Source, room: Room) -> None:
        self._source = source
        self._room = room
        self._hash = hashlib.sha256()

    @property
    def size(self) -> int:
        """Bytes yielded so far."""
        return self._room.used

    @property
    def digest(self) -> str:
        """The digest of the bytes yielded so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def __iter__(self) -> Iterator[bytes]:
        """Yield the archive in blocks. ResourceExhausted beyond the limits."""
        for block in decompressed(iter(self._source)):
            self._hash.update(block)
            self._room.take(len(block))
            yield block
