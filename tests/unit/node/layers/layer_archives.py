"""Archives built byte by byte, so that they can be invalid in any way, and helpers to unpack them."""

from __future__ import annotations

import gzip
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from noderuntime.core.errors import InvalidArgument, NoderuntimeError
from noderuntime.node.layers import job
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS, Limits, Unpacked

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0123456"
END = bytes(1024)
USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)
TAR = "application/vnd.oci.image.layer.v1.tar"


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """Return a number in GNU base-256: two's complement with the first bit set."""
    return bytes([0x80 | (value >> 8 * (width - 1)) & 0x7F]) + (value & (1 << 8 * (width - 1)) - 1).to_bytes(
        width - 1, "big"
    )


@dataclass
class Header:
    """The fields of a header, as raw bytes or as numbers."""

    name: bytes = b"file"
    kind: int = FILE
    mode: int | bytes = 0o644
    uid: int | bytes = os.getuid()
    gid: int | bytes = os.getgid()
    size: int | bytes = 0
    mtime: int | bytes = 0
    target: bytes = b""
    magic: bytes = USTAR
    major: int | bytes = 0
    minor: int | bytes = 0
    prefix: bytes = b""
    tail: bytes = b""
    """Replaces everything from the prefix on."""

    def pack(self, *, signed: bool = False, check: bytes | None = None) -> bytes:
        def field(value: int | bytes, width: int) -> bytes:
            return octal(value, width) if isinstance(value, int) else value.ljust(width, b"\0")

        start = (
            self.name.ljust(100, b"\0")
            + b"".join(field(value, 8) for value in (self.mode, self.uid, self.gid))
            + b"".join(field(value, 12) for value in (self.size, self.mtime))
        )
        rest = (
            bytes([self.kind])
            + self.target.ljust(100, b"\0")
            + self.magic
            + bytes(64)
            + field(self.major, 8)
            + field(self.minor, 8)
            + (self.tail or self.prefix).ljust(167, b"\0")
        )
        counted = start + b" " * 8 + rest
        total = sum(byte - 256 * (signed and byte > 127) for byte in counted)
        packed = start + (b"%06o\0 " % total if check is None else check) + rest
        assert len(packed) == 512
        return packed


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def entry(name: bytes | str, kind: int = FILE, content: bytes = b"", **fields: object) -> bytes:
    """Return an entry with its contents."""
    name = os.fsencode(name)
    return Header(name=name, kind=kind, **{"size": len(content), **fields}).pack() + padded(content)


def directory(name: bytes | str, mode: int = 0o755, **fields: object) -> bytes:
    return entry(name, DIRECTORY, mode=mode, **fields)


def symlink(name: bytes | str, target: bytes, **fields: object) -> bytes:
    """Return a symlink. A target longer than the header's field is in a preceding extended header."""
    before = pax((b"linkpath", target)) if len(target) > 100 else b""
    return before + entry(name, SYMLINK, target=target[:100], mode=0o777, **fields)


def link(name: bytes | str, target: bytes) -> bytes:
    return entry(name, LINK, target=target)


def record(key: bytes, value: bytes) -> bytes:
    """Return a record of an extended header."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Return an extended header."""
    return entry("pax", kind[0], b"".join(record(key, value) for key, value in records))


def long(kind: bytes, text: bytes) -> bytes:
    """Return a GNU long name (L) or target (K) for the next entry."""
    return entry("././@LongLink", kind[0], text + b"\0", magic=GNU)


def xattr(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return b"SCHILY.xattr." + name, value


def unpack(blob: bytes, target: Path, limits: Limits = DEFAULT_LIMITS) -> Unpacked:
    """Unpack a layer in this process, as a worker does."""
    target.mkdir(exist_ok=True)
    fd = os.memfd_create("layer")
    try:
        os.write(fd, blob)
        return job.unpack(fd, lambda offset: (len(blob), True), str(target), limits)
    finally:
        os.close(fd)


def unpack_entries(target: Path, *entries: bytes, limits: Limits = DEFAULT_LIMITS) -> Unpacked:
    return unpack(b"".join(entries) + END, target, limits)


def refused(
    target: Path,
    *entries: bytes,
    match: str,
    error: type[NoderuntimeError] = InvalidArgument,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Check that the entries are refused with one printable line."""
    with pytest.raises(error, match=match) as caught:
        unpack_entries(target, *entries, limits=limits)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def zipped(*entries: bytes) -> bytes:
    return gzip.compress(b"".join(entries) + END, 9)


def tree(root: Path) -> dict[str, str]:
    """Return a description of every path below a directory: its type and content, or target of a symlink."""
    found = {}
    for parent, directories, files in os.walk(os.fsencode(root)):
        for name in (*directories, *files):
            path = os.path.join(parent, name)
            found[os.fsdecode(os.path.relpath(path, os.fsencode(root)))] = _described(path)
    return found


def _described(path: bytes) -> str:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"-> {os.fsdecode(os.readlink(path))}"
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:
            return repr(file.read(100))[1:]
    return {stat.S_IFDIR: "dir", stat.S_IFCHR: "chr", stat.S_IFBLK: "blk", stat.S_IFIFO: "fifo"}[
        stat.S_IFMT(mode)
    ]
