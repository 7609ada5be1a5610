"""The files of an image archive, by name. An archive is a directory, or a tar file that can be compressed.

A tar file is not unpacked: one pass over it records the offset of each file. One that is not seekable
(a pipe, a compressed file) is first written, uncompressed, to an unnamed temporary file.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from noderuntime.core.errors import HostError, InvalidArgument, NotFound
from noderuntime.node.host.syscalls import open_in_root
from noderuntime.node.layers.decompress import BLOCK, decompressed
from noderuntime.node.layers.room import Room
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar import entry as kinds
from noderuntime.node.layers.tar.entry import Entry
from noderuntime.node.layers.tar.limits import Limits
from noderuntime.node.layers.tar.reader import Archive

_ENTRIES_LIMIT = 100_000
_ALIASES = 4
"""Links that are followed in a row. Old versions of Docker write one if two layers are equal."""


class Piece(NamedTuple):
    """The content of a file: a range of the file behind a descriptor."""

    fd: int
    offset: int
    size: int

    def read(self, at: int, count: int) -> bytes:
        """Return at most ``count`` bytes at an offset, fewer only at the end. Blocks."""
        return os.pread(self.fd, max(0, min(count, self.size - at)), self.offset + at)


class Files(Protocol):
    """The files of an archive. All methods block."""

    def find(self, name: str) -> Piece:
        """Return a file's content, valid until :meth:`close`. NotFound if there is no such file."""

    def close(self) -> None:
        """Close all descriptors."""


def open_files(path: Path, spool: Path, limits: Limits) -> Files:
    """Open a directory or a tar file. ``spool`` is a directory with room for the uncompressed file. Blocks.

    NotFound if the path does not exist, InvalidArgument if it is not an archive or is damaged,
    ResourceExhausted if the uncompressed file exceeds the limits.
    """
    limits = limits._replace(entries=_ENTRIES_LIMIT)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        return _Directory(fd)
    with open(fd, "rb", buffering=0):
        copy = _plain(fd, spool, limits)
        return _Tar(os.dup(fd) if copy is None else copy, limits)


class _Directory:
    """The files of a directory, which is untrusted: symlinks are confined to it."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open = ExitStack()
        self._open.callback(os.close, root)

    def find(self, name: str) -> Piece:
        try:
            fd = open_in_root(self._root, name)
        except HostError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise NotFound(f"the archive has no {name[:200]!r}") from None
            raise
        self._open.callback(os.close, fd)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidArgument(f"the archive's {name[:200]!r} is not a file")
        return Piece(fd, 0, found.st_size)

    def close(self) -> None:
        self._open.close()


class _Tar:
    """The files of a seekable, uncompressed tar file."""

    def __init__(self, fd: int, limits: Limits) -> None:
        self._fd = fd
        self._pieces: dict[str, Piece] = {}
        self._aliases: dict[str, str] = {}
        try:
            stream = Stream(_blocks(fd))
            for entry in Archive(stream, limits):
                self._note(entry, stream.position)
        except BaseException:
            os.close(fd)
            raise

    def find(self, name: str) -> Piece:
        wanted = name
        for _ in range(_ALIASES):
            if wanted in self._pieces:
                return self._pieces[wanted]
            wanted = self._aliases.get(wanted, "")
        raise NotFound(f"the archive has no {name[:200]!r}")

    def close(self) -> None:
        os.close(self._fd)

    def _note(self, entry: Entry, position: int) -> None:
        name = _normal(entry.name)
        self._pieces.pop(name, None)
        if entry.kind == kinds.FILE and entry.sparse is None:
            self._pieces[name] = Piece(self._fd, position, entry.size)
        elif entry.kind == kinds.LINK:
            self._aliases[name] = _normal(entry.target)
        elif entry.kind == kinds.SYMLINK:
            self._aliases[name] = _normal(os.path.dirname(os.fsencode(name)) + b"/" + entry.target)


def _normal(name: bytes) -> str:
    """Return a name in the form that image archives use. It is only a key, so it is not resolved on disk."""
    return os.fsdecode(os.path.normpath(b"/" + name).lstrip(b"/"))


def _plain(fd: int, spool: Path, limits: Limits) -> int | None:
    """Write the file out uncompressed and return the copy's descriptor, or None if no copy is needed."""
    head = b""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        head = os.pread(fd, 512, 0)
        if len(head) < 512 or head[257:262] == b"ustar":
            return None
    with tempfile.TemporaryFile(dir=spool) as copy:
        _write_out(fd, copy, Room(os.fspath(spool), limits))
        return os.dup(copy.fileno())


def _write_out(fd: int, copy: IO[bytes], room: Room) -> None:
    """Decompress into a file."""
    for block in decompressed(_blocks(fd)):
        room.take(len(block))
        copy.write(block)
    copy.flush()


def _blocks(fd: int) -> Iterator[bytes]:
    """Yield the content of a descriptor, from the start of the file if it is seekable."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.lseek(fd, 0, os.SEEK_SET)
    while block := os.read(fd, BLOCK):
        yield block
