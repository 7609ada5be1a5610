"""Parser of sparse maps in the four formats of GNU tar."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar.entry import Sparse
from noderuntime.node.layers.tar.numbers import decimal, number
from noderuntime.node.layers.tar.pax import MAX_BYTES, Extended

_RECORD = 512
_PIECE = 24  # two numbers of 12 bytes in the old format
_MAX_PIECES = 1 << 16
"""Maximum number of pieces of a file."""


def old_gnu(header: bytes, stream: Stream, stored: int) -> Sparse:
    """Parse the map of a header of type ``S``: 4 pieces in the header, 21 in each following block."""
    numbers = _old_numbers(header[386:482])
    more = header[482]
    while more:
        block = stream.take(_RECORD)
        if len(block) < _RECORD or len(numbers) > 2 * _MAX_PIECES:
            raise InvalidArgument("the archive contains a damaged sparse map")
        numbers += _old_numbers(block[:504])
        more = block[504]
    return _checked(number(header[483:495]), numbers, stored)


def extended(pax: Extended, stream: Stream, stored: int) -> tuple[Sparse, int] | None:
    """Parse the map in an extended header (formats 0.0, 0.1) or before the contents (format 1.0).

    Returns the map and the remaining bytes of contents, or None if the file is not sparse.
    """
    records = pax.records
    if records.get(b"GNU.sparse.major") == b"1":
        size = decimal(records.get(b"GNU.sparse.realsize", b""))
        start = stream.position
        numbers = _leading_numbers(stream, stored)
        stored -= stream.position - start
        return _checked(size, numbers, stored), stored
    if b"GNU.sparse.size" not in records:
        return None
    fields = records[b"GNU.sparse.map"].split(b",") if b"GNU.sparse.map" in records else pax.pieces
    size, numbers = decimal(records[b"GNU.sparse.size"]), [decimal(field) for field in fields]
    return _checked(size, numbers, stored), stored


def _old_numbers(fields: bytes) -> list[int]:
    numbers: list[int] = []
    for at in range(0, len(fields), _PIECE):
        if not fields[at]:
            break
        numbers += (number(fields[at : at + 12]), number(fields[at + 12 : at + 24]))
    return numbers


def _leading_numbers(stream: Stream, stored: int) -> list[int]:
    """Parse a count and that many pairs, one number per line, padded to whole blocks."""
    lines: list[bytes] = []
    tail = b""
    expected = 1
    limit = min(stored, MAX_BYTES) // _RECORD
    while len(lines) < expected:
        limit -= 1
        if limit < 0:
            raise InvalidArgument("the archive contains a damaged sparse map")
        *ended, tail = (tail + stream.take(_RECORD)).split(b"\n")
        lines += ended
        if lines:
            expected = 1 + 2 * decimal(lines[0])
    return [decimal(line) for line in lines[1:expected]]


def _checked(size: int, numbers: Sequence[int], stored: int) -> Sparse:
    pieces = list(zip(numbers[::2], numbers[1::2], strict=False))
    fits = (
        size >= 0
        and len(numbers) % 2 == 0
        and len(pieces) <= _MAX_PIECES
        and all(offset >= 0 and length >= 0 for offset, length in pieces)
        and all(first[0] + first[1] <= second[0] for first, second in pairwise(pieces))
        and (not pieces or sum(pieces[-1]) <= size)
        and sum(length for _, length in pieces) == stored
    )
    if not fits:
        raise InvalidArgument("the archive contains a sparse map that does not match its contents")
    return Sparse(size, pieces)
