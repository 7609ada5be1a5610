"""The entries of an archive."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = (b"0", b"1", b"2", b"3", b"4", b"5", b"6")
"""The types of entries as in ustar. Older type letters are converted to these by the reader."""

NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})


class Sparse(NamedTuple):
    """The map of a sparse file: the offsets of its stored bytes."""

    size: int
    """Size of the file in bytes, including holes."""
    pieces: list[tuple[int, int]]
    """(offset, length), ascending and within the file. The sum of the lengths is the stored size."""


class Entry(NamedTuple):
    """An entry of an archive. Names are not validated; numbers are within their valid ranges."""

    kind: bytes
    name: bytes
    target: bytes
    """Target of a symlink or a hard link."""
    mode: int
    """Permissions with set-ID and sticky bits, without the file type."""
    uid: int
    gid: int
    mtime: int
    """Nanoseconds since 1970."""
    size: int
    """Bytes stored in the archive, for a file."""
    device: tuple[int, int]
    """Major and minor number."""
    xattrs: Mapping[bytes, bytes]
    sparse: Sparse | None


def quoted(name: bytes) -> str:
    """Return an untrusted name in quotes for an error message, as one line of limited length."""
    text = ascii(name[:200].decode("utf-8", "replace"))
    return text if len(name) <= 200 else f"{text}…"
