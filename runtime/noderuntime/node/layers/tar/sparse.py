"""Files with holes, in the four ways that GNU tar has written them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar.entry import Sparse
from noderuntime.node.layers.tar.numbers import decimal, number
from noderuntime.node.layers.tar.pax import LONGEST, Extended

_RECORD = 512
_PIECE = 24  # two numbers of 12 bytes in the old format
_MOST = 1 << 16
"""Pieces of one file."""


def old_gnu(header: bytes, stream: Stream, stored: int) -> Sparse:
    """Read the map in and behind a header of type ``S``: 4 pieces there, then 21 in each further block."""
    numbers = _old_numbers(header[386:482])
    more = header[482]
    while more:
        block = stream.take(_RECORD)
        if len(block) < _RECORD or len(numbers) > 2 * _MOST:
            raise InvalidArgument("the archive has a damaged map of a sparse file")
        numbers += _old_numbers(block[:504])
        more = block[504]
    return _checked(number(header[483:495]), numbers, stored)


def extended(pax: Extended, stream: Stream, stored: int) -> tuple[Sparse, int] | None:
    """Read a map from an extended header (formats 0.0, 0.1) or before the contents (1.0).

    Returns it with the bytes of contents that are left, or None for an ordinary file.
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
    """Read a count and that many pairs, a number a line, in whole blocks of their own."""
    lines: list[bytes] = []
    tail = b""
    wanted = 1
    limit = min(stored, LONGEST) // _RECORD
    while len(lines) < wanted:
        limit -= 1
        if limit < 0:
            raise InvalidArgument("the archive has a damaged map of a sparse file")
        *ended, tail = (tail + stream.take(_RECORD)).split(b"\n")
        lines += ended
        if lines:
            wanted = 1 + 2 * decimal(lines[0])
    return [decimal(line) for line in lines[1:wanted]]


def _checked(size: int, numbers: Sequence[int], stored: int) -> Sparse:
    pieces = list(zip(numbers[::2], numbers[1::2], strict=False))
    fits = (
        size >= 0
        and len(numbers) % 2 == 0
        and len(pieces) <= _MOST
        and all(offset >= 0 and length >= 0 for offset, length in pieces)
        and all(first[0] + first[1] <= second[0] for first, second in pairwise(pieces))
        and (not pieces or sum(pieces[-1]) <= size)
        and sum(length for _, length in pieces) == stored
    )
    if not fits:
        raise InvalidArgument("the archive has a map of a sparse file that does not fit its contents")
    return Sparse(size, pieces)
