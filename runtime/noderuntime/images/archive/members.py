"""The files of an image archive, by name: a directory, or a tar file that may be compressed.

Nothing of a tar file is unpacked: it is read through once to see what is where. One that cannot be
read twice (a pipe, a compressed one) is first written, uncompressed, to a file without a name.
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

from noderuntime.core.errors import HostError, InvalidArgument, NotFound, ResourceExhausted
from noderuntime.node.host.syscalls import open_in_root
from noderuntime.node.layers.decompress import BLOCK, decompressed
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar import entry as kinds
from noderuntime.node.layers.tar.entry import Entry
from noderuntime.node.layers.tar.limits import Limits
from noderuntime.node.layers.tar.reader import Archive

_LIMITS = Limits(entries=100_000)
_ALIASES = 4
"""Links in a row that are followed; Docker used to write one where two layers are the same."""


class Piece(NamedTuple):
    """A file's content: part of what is behind a descriptor."""

    fd: int
    offset: int
    size: int

    def read(self, at: int, count: int) -> bytes:
        """Read from a position on; less only at the end. Blocks."""
        return os.pread(self.fd, max(0, min(count, self.size - at)), self.offset + at)


class Files(Protocol):
    """Files by name; everything here blocks."""

    def find(self, name: str) -> Piece:
        """Open a file; the descriptor lives as long as all this. NotFound."""

    def close(self) -> None:
        """Close all descriptors."""


def open_files(path: Path, spool: Path) -> Files:
    """Open a directory, or a tar file; ``spool`` is a directory with room for an uncompressed one. Blocks.

    InvalidArgument when it is none of these, or damaged.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"there is no {path}") from None
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        return _Directory(fd)
    with open(fd, "rb", buffering=0):
        copy = _plain(fd, spool)
        return _Tar(os.dup(fd) if copy is None else copy)


class _Directory:
    """A directory that a stranger filled: links in it do not lead out of it."""

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
            raise InvalidArgument(f"the archive's {name[:200]!r} is no file")
        return Piece(fd, 0, found.st_size)

    def close(self) -> None:
        self._open.close()


class _Tar:
    """An uncompressed tar file that can be read at any place."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pieces: dict[str, Piece] = {}
        self._aliases: dict[str, str] = {}
        try:
            stream = Stream(_blocks(fd))
            for entry in Archive(stream, _LIMITS):
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
    """Write a name as image archives use it; where it leads is of no matter, it is only a key."""
    return os.fsdecode(os.path.normpath(b"/" + name).lstrip(b"/"))


def _plain(fd: int, spool: Path) -> int | None:
    """Write the file out uncompressed, unless it can be used as it is; return the copy's descriptor."""
    head = b""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        head = os.pread(fd, 512, 0)
        if len(head) < 512 or head[257:262] == b"ustar":
            return None
    with tempfile.TemporaryFile(dir=spool) as copy:
        _write_out(fd, copy)
        return os.dup(copy.fileno())


def _write_out(fd: int, copy: IO[bytes]) -> None:
    """Decompress into a file; ResourceExhausted when it grows out of proportion."""
    compressed = written = 0

    def counted() -> Iterator[bytes]:
        nonlocal compressed
        for block in _blocks(fd):
            compressed += len(block)
            yield block

    for block in decompressed(counted()):
        written += copy.write(block)
        if written > min(_LIMITS.size, max(_LIMITS.ratio_from, compressed * _LIMITS.ratio)):
            raise ResourceExhausted(f"{written} bytes out of {compressed} compressed ones are too many")
    copy.flush()


def _blocks(fd: int) -> Iterator[bytes]:
    """Read a descriptor to its end, from the beginning where it has one."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.lseek(fd, 0, os.SEEK_SET)
    while block := os.read(fd, BLOCK):
        yield block
