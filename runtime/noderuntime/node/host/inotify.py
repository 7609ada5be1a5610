"""Events of directories, by inotify(7) on the event loop."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from noderuntime.core.blocking import Lane
from noderuntime.core.errors import HostError
from noderuntime.node.host.process import readable

MODIFY = 0x2
CLOSE_WRITE = 0x8
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
_OVERFLOW = 0x4000
_ONLYDIR = 0x01000000

_HEADER = struct.Struct("iIII")
_BUFFER = 1 << 16

_CLOSES = Lane("inotify", 1)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Changes:
    """The events of one read."""

    names: tuple[str, ...]
    overflow: bool
    """Whether events were lost, so that the directory must be listed."""


class DirectoryWatch:
    """An inotify instance that watches directories. A context manager."""

    def __init__(self) -> None:
        self._fd = _call(_libc.inotify_init1, os.O_NONBLOCK | os.O_CLOEXEC)

    @classmethod
    def on(cls, directory: Path, mask: int) -> DirectoryWatch:
        """Return a watch of one directory. Its filesystem must not block."""
        watch = cls()
        try:
            watch.add(directory, mask)
        except HostError:
            watch.close()
            raise
        return watch

    def add(self, directory: Path, mask: int) -> None:
        """Watch a directory. Can block if its filesystem does."""
        _call(_libc.inotify_add_watch, self._fd, os.fsencode(directory), ctypes.c_uint(mask | _ONLYDIR))

    def __enter__(self) -> DirectoryWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching.

        close(2) waits for the kernel's grace period, some ten milliseconds, so a thread calls it.
        """
        if self._fd >= 0:
            _CLOSES.submit(os.close, self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """Return the descriptor, which is readable if there are events."""
        return self._fd

    async def changes(self) -> Changes:
        """Wait for events and return them."""
        await readable(self._fd)
        return self.read()

    def read(self) -> Changes:
        """Return the pending events. Does not block."""
        try:
            events = tuple(_parse(os.read(self._fd, _BUFFER)))
        except BlockingIOError:
            return Changes((), overflow=False)
        return Changes(
            tuple(name for _, name in events if name), overflow=any(mask & _OVERFLOW for mask, _ in events)
        )


def _parse(data: bytes) -> Iterator[tuple[int, str]]:
    offset = 0
    while offset < len(data):
        _, mask, _, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        yield mask, os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
        offset += length


def _call(function: Callable[..., int], *arguments: object) -> int:
    result = function(*arguments)
    if result < 0:
        errno = ctypes.get_errno()
        raise HostError("watch a directory", errno, os.strerror(errno))
    return result
