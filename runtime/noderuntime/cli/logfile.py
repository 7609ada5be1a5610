"""Reading of log files in the CRI log format: one ``TIME STREAM TAG CONTENT`` entry per line.

The tag is ``F`` for a full line and ``P`` for a partial one: a line that is longer than the runtime's
buffer, or not ended yet, is written as several entries, and those of both streams can alternate.
The kubelet rotates a log: it renames the file and calls ReopenContainerLog, and the runtime opens a new file.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from noderuntime.node.host.inotify import CREATE, MODIFY, MOVED_TO, DirectoryWatch

STREAMS = (b"stdout", b"stderr")

_MAX_ENTRY_BYTES = 1 << 20
_IDLE_SECONDS = 1.0
"""After this long without a change of the directory, check whether the container has ended."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One log entry: a line of the container's output, or a part of one."""

    offset: int
    """Offset of the entry in the file."""
    time: bytes
    stream: bytes
    content: bytes
    ends: bool
    """Whether the line ends with this entry."""


class LogReader:
    """A reader of one log, from its beginning and across rotations. The caller must close it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")

    def pieces(self) -> Iterator[Piece]:
        """Yield the complete entries from the current offset to the end of the file."""
        while raw := self._file.readline(_MAX_ENTRY_BYTES):
            if not raw.endswith(b"\n") and len(raw) < _MAX_ENTRY_BYTES:
                self._file.seek(-len(raw), os.SEEK_CUR)  # the runtime is still writing this entry
                return
            yield _parse(raw, self.offset - len(raw))

    @property
    def offset(self) -> int:
        """The current offset in the open file."""
        return self._file.tell()

    def rewind(self) -> None:
        """Continue reading at the beginning of the open file."""
        self._file.seek(0)

    def reopen_if_rotated(self) -> bool:
        """Open the file that replaced this one, if any, and return whether one did.

        The caller must have read the open file to its end.
        """
        try:
            if os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                return False
            successor = self.path.open("rb")
        except FileNotFoundError:
            return False
        self.close()
        self._file = successor
        return True

    def close(self) -> None:
        """Close the open file."""
        self._file.close()


def last_lines(pieces: Iterable[Piece], count: int) -> set[int]:
    """Return the offsets at which the last ``count`` lines begin. A line that has not ended counts."""
    begun: dict[bytes, int] = {}
    lines: deque[int] = deque(maxlen=count)
    for piece in pieces:
        begin = begun.pop(piece.stream, piece.offset)
        if piece.ends:
            lines.append(begin)
        else:
            begun[piece.stream] = begin
    lines.extend(sorted(begun.values()))
    return set(lines)


async def follow(reader: LogReader, ended: Callable[[], Awaitable[bool]]) -> AsyncGenerator[Piece, None]:
    """Yield the entries to come until ``ended``, which is called while the log is idle, returns True."""
    with DirectoryWatch.on(reader.path.parent, CREATE | MOVED_TO | MODIFY) as watch:
        over = False
        while True:
            for piece in reader.pieces():
                yield piece
            if reader.reopen_if_rotated():
                continue
            if over:
                return
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    await watch.changes()
            except TimeoutError:
                over = await ended()


def _parse(raw: bytes, offset: int) -> Piece:
    """Parse an entry. A line that is not in the CRI format is returned as content of stdout."""
    line = raw.removesuffix(b"\n")
    time, stream, tag, content, *_ = (*line.split(b" ", 3), b"", b"", b"", b"")
    if stream not in STREAMS:
        return Piece(offset, b"", STREAMS[0], line, ends=raw != line)
    return Piece(offset, time, stream, content, ends=tag.partition(b":")[0] != b"P")
