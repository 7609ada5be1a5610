"""Extended headers: precedence and damage."""

import pytest
from layer_archives import (
    END,
    base256,
    entry,
    long,
    padded,
    pax,
    record,
    xattr,
)
from layer_reading import read_one, refused_to_read


def test_extended_header_takes_precedence():
    name, target = "ä/".encode() * 100 + b"n", b"t" * 500
    item, content = read_one(
        pax(
            (b"path", name),
            (b"linkpath", target),
            (b"uid", b"4294967294"),
            (b"gid", b"4000000000"),
            (b"size", b"3"),
            (b"mtime", b"1700000000.987654321"),
            (b"comment", b"ignored"),
        ),
        entry("short", size=0) + padded(b"abc"),
    )
    assert (item.name, item.target, content) == (name, target, b"abc")
    assert (item.uid, item.gid, item.mtime) == (0xFFFFFFFE, 4_000_000_000, 1700000000987654321)


def test_records_of_extended_attributes_are_parsed():
    longest = b"v" * 70_000
    item, _ = read_one(
        pax(
            xattr(b"user.a", b"with = and \n and \0"), xattr(b"user.empty", b""), xattr(b"user.long", longest)
        ),
        entry("a"),
    )
    assert item.xattrs == {b"user.a": b"with = and \n and \0", b"user.empty": b"", b"user.long": longest}


def test_later_record_wins_and_an_empty_one_removes_it():
    assert read_one(pax((b"path", b"a"), (b"path", b"b")), entry("x"))[0].name == b"b"
    assert read_one(pax((b"path", b"a"), (b"path", b"")), entry("x"))[0].name == b"x"


def test_later_extended_header_replaces_the_earlier():
    item, _ = read_one(pax((b"uid", b"7"), (b"path", b"a")), pax((b"path", b"b")), entry("x", uid=3))
    assert (item.name, item.uid) == (b"b", 3)


def test_global_extended_header_is_ignored():
    item, _ = read_one(pax((b"path", b"evil"), (b"uid", b"7"), kind=b"g"), entry("x", uid=3))
    assert (item.name, item.uid) == (b"x", 3)


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"5 a=b",
        b"7 a=b\n",
        b"6 a=b\nx",
        b"4 a=\n",
        b"6 =bc\n",
        b"5 ab\n",
        b" 6 a=b\n",
        b"-6 a=b\n",
        b"0 a=b\n",
        b"2 ",
        b"99999999 a=b\n",
        b"6 a=b\0",
        record(b"path", b"a\0b"),
        record(b"linkpath", b"a\0b"),
        record(b"SCHILY.xattr.", b"x"),
        record(b"SCHILY.xattr.a\0b", b"x"),
        record(b"uid", b"-1"),
        record(b"uid", b"99999999999999999999999"),
        record(b"gid", b"0x10"),
        record(b"size", b"-5"),
        record(b"size", b"1.5"),
        record(b"mtime", b"yesterday"),
    ],
)
def test_damaged_extended_header_is_refused(data):
    refused_to_read(entry("pax", b"x"[0], data), entry("a"), END, match="the archive contains")


@pytest.mark.parametrize("kind", b"xgLK")
def test_too_long_extended_header_is_refused(kind):
    refused_to_read(entry("pax", kind, size=(1 << 20) + 1), END, match="extended header of 1048577 bytes")
    refused_to_read(entry("pax", kind, size=base256(-1, 12)), END, match="extended header of -1 bytes")


@pytest.mark.parametrize("before", [pax((b"path", b"a")), long(b"L", b"a"), long(b"K", b"a")])
def test_extended_header_without_an_entry_is_refused(before):
    refused_to_read(before, END, match="is truncated")
