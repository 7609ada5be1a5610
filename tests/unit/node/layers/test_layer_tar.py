"""The reader of archives in ustar, pax and GNU format, and damaged archives."""

import io
import tarfile

import pytest
from layer_archives import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    END,
    FIFO,
    FILE,
    GNU,
    LINK,
    SYMLINK,
    V7,
    Header,
    base256,
    entry,
    long,
    pax,
    symlink,
)
from layer_reading import read, read_one, refused_to_read

from noderuntime.core.errors import ResourceExhausted
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS
from noderuntime.node.layers.tar.reader import Archive


def test_header_fields_are_parsed():
    item, content = read_one(
        entry("etc/passwd", content=b"root", mode=0o4755, uid=12, gid=34, mtime=1_600_000_000)
    )
    assert content == b"root"
    assert (item.kind, item.name, item.mode, item.uid, item.gid) == (b"0", b"etc/passwd", 0o4755, 12, 34)
    assert item.mtime == 1_600_000_000 * 10**9
    assert item.size == 4


@pytest.mark.parametrize("block", [1, 511, 512, 513, 4096])
def test_archive_is_read_in_blocks_of_any_size(block):
    archive = entry("a", content=b"x" * 1000) + entry("b", content=b"") + entry("c", content=b"y" * 512) + END
    assert [(item.name, content) for item, content in read(archive, block=block)] == [
        (b"a", b"x" * 1000),
        (b"b", b""),
        (b"c", b"y" * 512),
    ]


def test_unread_contents_are_skipped():
    stream = Stream(iter([entry("a", content=b"x" * 5000), entry("b"), END]))
    assert [item.name for item in Archive(stream, DEFAULT_LIMITS)] == [b"a", b"b"]


@pytest.mark.parametrize("kind", [FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO])
def test_entry_types_are_parsed(kind):
    item, _ = read_one(entry("a", kind, target=b"b", major=8, minor=1))
    assert item.kind == bytes([kind])
    assert item.target == b"b"
    assert item.device == ((8, 1) if kind in (CHARACTER, BLOCK) else (0, 0))


def test_older_entry_types_are_converted():
    assert read_one(entry("a", 0, b"x", magic=V7))[0].kind == b"0"
    assert read_one(entry("a/", 0, magic=V7))[0].kind == b"5"
    assert read_one(pax((b"path", b"long/")), entry("a", 0))[0].kind == b"5"
    assert read_one(entry("a", b"7"[0], b"contiguous"))[1] == b"contiguous"


@pytest.mark.parametrize("kind", b"8DMNVXAz\xff")
def test_unknown_entry_type_is_refused(kind):
    refused_to_read(entry("odd", kind), END, match="'odd' has the unknown type")


@pytest.mark.parametrize("kind", [LINK, SYMLINK, CHARACTER, DIRECTORY, FIFO])
def test_size_of_a_type_without_contents_is_ignored(kind):
    archive = entry("a", kind, size=5000) + entry("b") + END
    assert [item.name for item, _ in read(archive)] == [b"a", b"b"]


def test_prefix_is_part_of_the_name_in_ustar_only():
    assert read_one(entry("b", prefix=b"a" * 155))[0].name == b"a" * 155 + b"/b"
    assert read_one(entry("n" * 100, prefix=b"a/b"))[0].name == b"a/b/" + b"n" * 100
    assert read_one(entry("b", prefix=b"atime", magic=GNU))[0].name == b"b"
    assert read_one(entry("b", prefix=b"a", magic=V7))[0].name == b"b"


def test_gnu_long_name_and_target_are_read():
    name, target = b"d/" * 200 + b"n", b"t" * 300
    item, _ = read_one(long(b"K", target), long(b"L", name), entry("short", SYMLINK, target=b"t", magic=GNU))
    assert (item.name, item.target) == (name, target)


def test_extended_header_applies_to_one_entry():
    archive = (
        long(b"L", b"long") + entry("a") + entry("b") + pax((b"path", b"c")) + entry("x") + entry("d") + END
    )
    assert [item.name for item, _ in read(archive)] == [b"long", b"b", b"c", b"d"]


def test_gnu_base_256_numbers_are_read():
    item, _ = read_one(
        entry("a", uid=base256(0xFFFFFFFE, 8), gid=base256(1 << 31, 8), mtime=base256(-1, 12), magic=GNU)
    )
    assert (item.uid, item.gid, item.mtime) == (0xFFFFFFFE, 1 << 31, -(10**9))


def test_gnu_base_256_size_is_read():
    limits = DEFAULT_LIMITS._replace(size=1 << 40)
    stream = Stream(iter([entry("a", size=base256(10 << 30, 12), magic=GNU)]))
    assert next(iter(Archive(stream, limits))).size == 10 << 30


@pytest.mark.parametrize("fields", [{"uid": base256(-1, 8)}, {"gid": base256(0xFFFFFFFF, 8)}])
def test_invalid_owner_is_refused(fields):
    refused_to_read(entry("a", magic=GNU, **fields), END, match="invalid owner")


def test_negative_size_is_refused():
    refused_to_read(entry("a", size=base256(-512, 12)), END, match="invalid size of -512")


def test_size_beyond_the_limit_is_refused():
    limits = DEFAULT_LIMITS._replace(size=1 << 20)
    refused_to_read(
        entry("a", size=(1 << 20) + 1), END, match="1048577 bytes", limits=limits, error=ResourceExhausted
    )
    refused_to_read(
        pax((b"size", b"18446744073709551615")),
        entry("a"),
        END,
        match="more than the limit",
        error=ResourceExhausted,
    )


@pytest.mark.parametrize("field", ["mode", "uid", "gid", "size", "mtime"])
def test_invalid_octal_number_is_refused(field):
    refused_to_read(entry("a", **{field: b"0000009\0"}), END, match="invalid octal")


def test_device_numbers_are_read_for_devices_only():
    assert read_one(entry("a", major=b"nothing!", minor=b"nothing!"))[0].device == (0, 0)
    refused_to_read(entry("a", CHARACTER, major=b"nothing!"), END, match="invalid octal")


def test_checksum_of_signed_bytes_is_accepted():
    archive = Header(name=b"caf\xe9\xe9").pack(signed=True) + END
    assert read(archive)[0][0].name == b"caf\xe9\xe9"
    assert read_one(Header(name=b"\xff" * 100, mode=b"\xff" * 8, prefix=b"\xff" * 155).pack())


@pytest.mark.parametrize("at", [0, 99, 124, 148, 156, 345, 511])
def test_damaged_header_is_refused(at):
    header = bytearray(entry("a" * 100, prefix=b"p" * 155))
    header[at] ^= 1
    refused_to_read(bytes(header), END, match="not a tar archive or is damaged")


@pytest.mark.parametrize("content", [b"<html>" * 200, b"PK\x03\x04" * 200, b"\xff" * 1024, b"0" * 512])
def test_data_that_is_not_an_archive_is_refused(content):
    refused_to_read(content, match="not a tar archive")


WHOLE = (
    pax((b"path", b"a")) + entry("x", content=b"c" * 700) + long(b"L", b"b") + entry("y", content=b"d") + END
)


def test_truncated_archive_is_refused():
    """An archive can end after an entry: some tools do not write the trailing zeros."""
    behind_an_entry = len(pax((b"path", b"a")) + entry("x", content=b"c" * 700))
    for length in range(1, len(WHOLE) - len(END)):
        if length == behind_an_entry:
            assert [item.name for item, _ in read(WHOLE[:length])] == [b"a"]
        else:
            refused_to_read(WHOLE[:length], match="is truncated")


@pytest.mark.parametrize("end", [b"", bytes(512), END, bytes(10240), bytes(777)])
def test_archive_can_end_with_any_number_of_zeros(end):
    assert [item.name for item, _ in read(entry("a") + end)] == [b"a"]
    assert read(end) == []


@pytest.mark.parametrize("zeros", [512, 1024, 10240])
@pytest.mark.parametrize("rest", [b"x", entry("hidden", content=b"x"), bytes(5000) + b"\1"])
def test_data_after_the_end_is_refused(zeros, rest):
    refused_to_read(entry("a"), bytes(zeros), rest, match="after the end of its archive")


def test_entries_beyond_the_limit_are_refused():
    limits = DEFAULT_LIMITS._replace(entries=10)
    assert len(read(entry("a") * 10 + END, limits)) == 10
    refused_to_read(
        entry("a") * 11, END, match="the limit of 10 entries", limits=limits, error=ResourceExhausted
    )
    refused_to_read(
        pax((b"uid", b"1")) * 11,
        entry("a"),
        END,
        match="the limit of 10 entries",
        limits=limits,
        error=ResourceExhausted,
    )


def test_names_need_not_be_text():
    name = b"\xff\n\x1b[31m"
    assert read_one(symlink(name, b"\xfe"))[0][1:3] == (name, b"\xfe")
    refused_to_read(entry(name, b"z"[0]), END, match="unknown type")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_pythons_tarfile_are_read(form):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for number in range(100):
            info = tarfile.TarInfo("d" * 90 + "/" + "n" * number)
            info.size, info.mode, info.uid, info.gid, info.mtime = number * 50, number, number, 7, 10**9
            archive.addfile(info, io.BytesIO(b"c" * info.size))
    found = read(buffer.getvalue())
    assert [(item.name.decode(), len(content)) for item, content in found] == [
        ("d" * 90 + "/" + "n" * number, number * 50) for number in range(100)
    ]
    assert {(item.gid, item.mtime) for item, _ in found} == {(7, 10**18)}
