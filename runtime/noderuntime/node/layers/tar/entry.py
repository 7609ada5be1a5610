"""One thing that an archive holds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = (b"0", b"1", b"2", b"3", b"4", b"5", b"6")
"""The kinds of entries, as ustar writes them; other letters for the same are translated when read."""

NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})


class Sparse(NamedTuple):
    """Where the stored bytes of a file with holes belong."""

    size: int
    """Of the file, holes included."""
    pieces: list[tuple[int, int]]
    """(offset, length), ascending, within the file; the lengths add up to what is stored."""


class Entry(NamedTuple):
    """An archive's entry; names are as they stand there, bounds of the numbers are checked."""

    kind: bytes
    name: bytes
    target: bytes
    """Of a symbolic or a hard link."""
    mode: int
    """Permissions, with set-ID and sticky bits, and nothing else."""
    uid: int
    gid: int
    mtime: int
    """Nanoseconds since 1970."""
    size: int
    """Bytes that the archive stores for it, if it is a file."""
    device: tuple[int, int]
    """Major and minor."""
    xattrs: Mapping[bytes, bytes]
    sparse: Sparse | None


def shown(name: bytes) -> str:
    """Return a name from an archive for an error message: one line, not too long."""
    text = ascii(name[:200].decode("utf-8", "replace"))
    return text if len(name) <= 200 else f"{text}…"
