"""Sparse files in the four formats of GNU tar."""

import os

import pytest
from layer_archives import GNU, base256, entry, octal, pax, unpack, unpack_entries

from noderuntime.core.errors import InvalidArgument, ResourceExhausted
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS

MAP = [(0, 3), (1 << 20, 700), ((1 << 20) + 4096, 1), (3 << 20, 0)]
STORED = b"abc" + b"m" * 700 + b"z"
CONTENT = (b"abc".ljust(1 << 20, b"\0") + (b"m" * 700).ljust(4096, b"\0") + b"z").ljust(3 << 20, b"\0")
MANY = [(at * 8192, 1) for at in range(100)]


def field(value):
    return octal(value, 12) if 0 <= value < 8**11 else base256(value, 12)


def old(pieces, size, stored):
    """Return a sparse file in the old format: 4 pieces in the header, then 21 per block."""
    packed = [field(offset) + field(length) for offset, length in pieces]
    first, rest = packed[:4], packed[4:]
    size = field(size)
    tail = bytes(41) + b"".join(first).ljust(96, b"\0") + bytes([bool(rest)]) + size
    head = entry("file", b"S"[0], magic=GNU, tail=tail, size=len(stored))
    blocks = b""
    while rest:
        block, rest = rest[:21], rest[21:]
        blocks += b"".join(block).ljust(504, b"\0") + bytes([bool(rest)]) + bytes(7)
    return head + blocks + stored + bytes(-len(stored) % 512)


def pax_0_0(pieces, size, stored):
    numbers = [
        pair
        for offset, length in pieces
        for pair in ((b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length))
    ]
    return pax(
        (b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(pieces)), *numbers
    ) + entry("file", content=stored)


def pax_0_1(pieces, size, stored):
    numbers = b",".join(b"%d,%d" % piece for piece in pieces)
    return pax(
        (b"GNU.sparse.size", b"%d" % size),
        (b"GNU.sparse.numblocks", b"%d" % len(pieces)),
        (b"GNU.sparse.map", numbers),
        (b"GNU.sparse.name", b"file"),
    ) + entry("GNUSparseFile.1/file", content=stored)


def pax_1_0(pieces, size, stored):
    numbers = b"".join(
        b"%d\n" % number for number in (len(pieces), *(part for piece in pieces for part in piece))
    )
    return pax(
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"file"),
        (b"GNU.sparse.realsize", b"%d" % size),
    ) + entry("GNUSparseFile.1/file", content=numbers + bytes(-len(numbers) % 512) + stored)


FORMATS = [old, pax_0_0, pax_0_1, pax_1_0]


@pytest.mark.parametrize("form", FORMATS)
def test_sparse_file_has_contents_and_holes(target, form):
    unpack_entries(target, form(MAP, len(CONTENT), STORED), entry("behind", content=b"b"))
    assert (target / "file").read_bytes() == CONTENT
    assert (target / "behind").read_bytes() == b"b"
    assert sorted(os.listdir(target)) == ["behind", "file"]
    assert (target / "file").stat().st_blocks * 512 < len(CONTENT) // 8


@pytest.mark.parametrize("form", FORMATS)
def test_sparse_map_can_span_several_blocks(target, form):
    unpack_entries(target, form(MANY, 1 << 20, b"p" * 100), entry("behind", content=b"b"))
    content = (target / "file").read_bytes()
    assert len(content) == 1 << 20
    assert [at for at, byte in enumerate(content) if byte] == [offset for offset, _ in MANY]
    assert (target / "behind").read_bytes() == b"b"


@pytest.mark.parametrize("form", FORMATS)
def test_sparse_file_can_be_one_hole(target, form):
    unpack_entries(target, form([(1 << 20, 0)], 1 << 20, b""), entry("behind", content=b"b"))
    assert (target / "file").read_bytes() == bytes(1 << 20)
    assert (target / "behind").read_bytes() == b"b"


def test_sparse_file_size_can_be_base_256(target):
    unpack_entries(target, old([(20 << 30, 1)], (20 << 30) + 1, b"x"))
    assert (target / "file").stat().st_size == (20 << 30) + 1


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("pieces", "size", "stored"),
    [
        ([(0, 10)], 10, b"short"),
        ([(0, 2)], 10, b"too long"),
        ([(0, 5), (4, 5)], 20, b"overlap456"),
        ([(10, 5), (0, 5)], 20, b"disordered"),
        ([(0, 5)], 4, b"large"),
        ([(1 << 30, 5)], 4, b"large"),
    ],
)
def test_sparse_map_must_match_its_contents(target, form, pieces, size, stored):
    with pytest.raises(InvalidArgument, match="does not match its contents"):
        unpack_entries(target, form(pieces, size, stored))


@pytest.mark.parametrize("form", FORMATS)
def test_sparse_file_size_is_limited(target, form):
    limits = DEFAULT_LIMITS._replace(size=1 << 20)
    with pytest.raises(ResourceExhausted, match="1048577 bytes, more than the limit"):
        unpack_entries(target, form([(0, 1)], (1 << 20) + 1, b"x"), limits=limits)


def test_negative_numbers_in_a_sparse_map_are_refused(target):
    minus = base256(-1, 12)
    tail = bytes(41) + minus + octal(1, 12) + bytes(72) + b"\0" + octal(5, 12)
    for broken in (
        entry("f", b"S"[0], b"x", magic=GNU, tail=tail),
        old([], -5, b""),
        pax((b"GNU.sparse.size", b"-5"), (b"GNU.sparse.map", b"0,0")) + entry("f"),
        pax((b"GNU.sparse.size", b"5"), (b"GNU.sparse.map", b"-1,1")) + entry("f", content=b"x"),
    ):
        with pytest.raises(InvalidArgument, match=r"sparse map|invalid number"):
            unpack_entries(target, broken)


@pytest.mark.parametrize("numbers", [b"1\n0\n", b"-1\n", b"x\n", b"9" * 600, b"99999999999\n0\n1\n", b""])
def test_damaged_sparse_map_in_the_contents_is_refused(target, numbers):
    content = numbers.ljust(-(-len(numbers) // 512) * 512, b"\0")
    broken = pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"5")) + entry("f", content=content)
    with pytest.raises(InvalidArgument, match=r"sparse map|invalid number"):
        unpack_entries(target, broken)


def test_sparse_map_blocks_are_limited(target):
    block = (octal(1, 12) + octal(0, 12)) * 21 + b"\1" + bytes(7)
    tail = bytes(41) + bytes(96) + b"\1" + octal(5, 12)
    head = entry("file", b"S"[0], magic=GNU, tail=tail)
    with pytest.raises(InvalidArgument, match="damaged sparse map"):
        unpack_entries(target, head, block * 10_000)
    with pytest.raises(InvalidArgument, match="damaged sparse map"):
        unpack(head + block[:100], target)


def test_sparse_file_without_a_size_is_refused(target):
    with pytest.raises(InvalidArgument, match="invalid number"):
        unpack_entries(target, pax((b"GNU.sparse.major", b"1")), entry("f", content=b"0\n".ljust(512, b"\0")))
