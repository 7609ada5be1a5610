"""Log files as the kubelet and all CRI runtimes know them: ``TIME STREAM TAG CONTENT``, a line for each.

The tag is ``F`` for a full line and ``P`` for a part of one: a line that is longer than the
runtime's buffer, or not ended yet, comes in pieces, those of both streams mixed.
A log is rotated by renaming the file, whereupon the runtime opens another one.
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

_LONGEST = 1 << 20
_LOOK_SECONDS = 1.0
"""After so long without news somebody has to ask whether there will be any."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A line of a container, or a part of one."""

    offset: int
    """Where it stands in the file."""
    time: bytes
    stream: bytes
    content: bytes
    ends: bool
    """Whether the line ends here."""


class LogReader:
    """Reads a log from its beginning, and over rotations; to be closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")

    def pieces(self) -> Iterator[Piece]:
        """Yield what there is from here on."""
        while raw := self._file.readline(_LONGEST):
            if not raw.endswith(b"\n") and len(raw) < _LONGEST:
                self._file.seek(-len(raw), os.SEEK_CUR)  # it is just being written
                return
            yield _parse(raw, self.offset - len(raw))

    @property
    def offset(self) -> int:
        """How far it has read in the present file."""
        return self._file.tell()

    def rewind(self) -> None:
        """Begin again."""
        self._file.seek(0)

    def turn(self) -> bool:
        """Go to the file that has taken this one's place, if one has; what was to read here was read."""
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
        """Close the file."""
        self._file.close()


def last_lines(pieces: Iterable[Piece], count: int) -> set[int]:
    """Return where the last lines begin, one that has not ended yet among them."""
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
    """Yield what is there and what is still to come; ``ended`` is asked when nothing comes for a while."""
    with DirectoryWatch(reader.path.parent, CREATE | MOVED_TO | MODIFY) as watch:
        over = False
        while True:
            for piece in reader.pieces():
                yield piece
            if reader.turn():
                continue
            if over:
                return
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await watch.changes()
            except TimeoutError:
                over = await ended()


def _parse(raw: bytes, offset: int) -> Piece:
    """Take a line of the file apart; one of another form is content as it stands."""
    line = raw.removesuffix(b"\n")
    time, stream, tag, content, *_ = (*line.split(b" ", 3), b"", b"", b"", b"")
    if stream not in STREAMS:
        return Piece(offset, b"", STREAMS[0], line, ends=raw != line)
    return Piece(offset, time, stream, content, ends=tag.partition(b":")[0] != b"P")
