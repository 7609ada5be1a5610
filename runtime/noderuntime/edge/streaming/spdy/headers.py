"""SPDY/3.1 header blocks: names and values in one zlib stream per direction (draft 3.1, section 2.6.10)."""

from __future__ import annotations

import struct
import zlib

from noderuntime.edge.streaming.spdy.dictionary import DICTIONARY
from noderuntime.edge.streaming.spdy.frames import SpdyError

LARGEST_BLOCK = 1 << 16
"""Limit in bytes of an uncompressed header block; those of Kubernetes have about a hundred."""

_NUMBER = struct.Struct(">I")


class HeaderReader:
    """The decompressor of one direction. It must process every block in order, even of ignored frames."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def read(self, compressed: bytes) -> dict[str, str]:
        """Return the headers by lower-case name, the first of several values. SpdyError if invalid."""
        try:
            block = self._zlib.decompress(compressed, LARGEST_BLOCK)
        except zlib.error as error:
            raise SpdyError(f"header block is not valid zlib data: {error}") from error
        if self._zlib.unconsumed_tail:
            raise SpdyError(f"header block of more than {LARGEST_BLOCK} bytes")
        if self._zlib.eof:
            raise SpdyError("header compression stream has ended")
        return _parse(block)


class HeaderWriter:
    """The compressor of the other direction. Kubernetes' responses have no headers: all blocks are empty."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def empty(self) -> bytes:
        """Return a block without headers."""
        return self._zlib.compress(_NUMBER.pack(0)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


def _parse(block: bytes) -> dict[str, str]:
    texts = _texts(block)
    names = [name.lower() for name in texts[::2]]
    if len(set(names)) != len(names):
        raise SpdyError("header block has a duplicate name")
    return {name: value.partition("\0")[0] for name, value in zip(names, texts[1::2], strict=True)}


def _texts(block: bytes) -> list[str]:
    """Return the alternating names and values of a block."""
    texts: list[str] = []
    try:
        (count,) = _NUMBER.unpack_from(block)
        offset = _NUMBER.size
        if count * 2 * _NUMBER.size > len(block):
            raise SpdyError(f"header block of {len(block)} bytes claims {count} headers")
        for _ in range(2 * count):
            (length,) = _NUMBER.unpack_from(block, offset)
            offset += _NUMBER.size + length
            texts.append(block[offset - length : offset].decode("latin-1"))
    except struct.error as error:
        raise SpdyError("header block is truncated") from error
    if offset != len(block):
        raise SpdyError("header block has inconsistent lengths")
    return texts
