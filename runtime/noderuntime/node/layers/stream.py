"""A reader of an archive in blocks. File contents are copied to a descriptor without intermediate bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from noderuntime.core.errors import InvalidArgument


class Stream:
    """A forward-only reader of the uncompressed archive."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = b""
        self._view = memoryview(b"")
        self._at = 0
        self._before = 0

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._before + self._at

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes, or fewer at the end of the archive."""
        at = self._at
        end = at + count
        if end <= len(self._block):
            self._at = end
            return self._block[at:end]
        taken = bytearray()
        while count > 0 and self._more():
            piece = self._block[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            taken += piece
        return bytes(taken)

    def copy(self, count: int, fd: int) -> None:
        """Write the next ``count`` bytes at the descriptor's position. InvalidArgument if there are fewer."""
        while count > 0:
            self._require()
            written = os.write(fd, self._view[self._at : self._at + count])
            self._at += written
            count -= written

    def skip_to(self, position: int) -> None:
        """Skip to a position. InvalidArgument if the archive ends before it."""
        while (count := position - self._before - self._at) > 0:
            self._require()
            self._at += min(count, len(self._block) - self._at)

    def rest_is_zero(self) -> bool:
        """Read to the end and return True, or return False at the first byte that is not zero."""
        while self._more():
            if self._block.count(0, self._at) != len(self._block) - self._at:
                return False
            self._at = len(self._block)
        return True

    def _more(self) -> bool:
        while self._at == len(self._block):
            block = next(self._blocks, None)
            if block is None:
                return False
            self._before += self._at
            self._at = 0
            self._block = block
            self._view = memoryview(block)
        return True

    def _require(self) -> None:
        if not self._more():
            raise InvalidArgument("the layer's archive is truncated")
