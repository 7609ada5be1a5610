"""One layer, from its compressed bytes to a directory: everything a worker does, without the process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing

from noderuntime.core.errors import DataLoss, ResourceExhausted, host_error
from noderuntime.node.layers.ahead import ahead
from noderuntime.node.layers.decompress import BLOCK, decompressed
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar.limits import Limits, Unpacked
from noderuntime.node.layers.unpack import Unpacking

More = Callable[[int], tuple[int, bool]]
"""Waits for more than that many bytes, or the end: how many there are, and whether that is all."""


def unpack(fd: int, more: More, target: str, limits: Limits) -> Unpacked:
    """Unpack a layer into an empty directory; the errors are those of :class:`Unpacking`.

    DataLoss when the file is shorter than ``more`` says, OSError when there is no such directory.
    """
    source = Source(fd, more)
    measured = Measured(source, limits)
    with closing(ahead(measured)) as blocks:
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
    """The compressed bytes of a file that may still be growing; the descriptor's position stays as it is."""

    def __init__(self, fd: int, more: More) -> None:
        self._fd = fd
        self._more = more
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes read so far."""

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def __iter__(self) -> Iterator[bytes]:
        """Yield everything, a block at a time."""
        there, complete = 0, False
        while True:
            while self.size < there:
                chunk = self._read(min(BLOCK, there - self.size))
                if not chunk:
                    raise DataLoss(f"the layer's file ends after {self.size} of {there} bytes")
                self._hash.update(chunk)
                self.size += len(chunk)
                yield chunk
            if complete:
                return
            there, complete = self._more(self.size)

    def _read(self, count: int) -> bytes:
        try:
            return os.pread(self._fd, count, self.size)
        except OSError as error:
            raise host_error("read a layer", error) from error


class Measured:
    """The uncompressed archive, hashed, and cut short where it grows beyond the limits."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """Of what came out so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def __iter__(self) -> Iterator[bytes]:
        """Yield everything; ResourceExhausted beyond the limits."""
        for block in decompressed(iter(self._source)):
            self._hash.update(block)
            self.size += len(block)
            self._check()
            yield block

    def _check(self) -> None:
        limits = self._limits
        if self.size > limits.size:
            raise ResourceExhausted(f"the layer has more than {limits.size} bytes uncompressed")
        if self.size > limits.ratio_from and self.size > limits.ratio * self._source.size:
            raise ResourceExhausted(
                f"the layer is a decompression bomb: {self._source.size} bytes became {self.size}"
            )
