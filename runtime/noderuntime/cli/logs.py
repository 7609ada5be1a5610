"""``noderuntime logs``: Print the log of a container, its stderr to stderr.

On a terminal, control characters of the container are escaped; a pipe or file gets the unchanged bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

from noderuntime.cli import options, text
from noderuntime.cli.find import find
from noderuntime.cli.logfile import STREAMS, LogReader, Piece, follow, last_lines
from noderuntime.core import ids
from noderuntime.core.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient


def run(arguments: Sequence[str]) -> int:
    """Print a container's log."""
    parser = options.parser("logs", __doc__)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="wait for new lines until the container has ended"
    )
    parser.add_argument("--tail", type=_count, metavar="N", help="start with the last N lines")
    parser.add_argument("--timestamps", action="store_true", help="print the time before each line")
    parser.add_argument("id", help="ID of a container, or a unique prefix of one")
    args = parser.parse_args(arguments)
    options.call(args.socket, partial(_print, args=args))
    return 0


def _count(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of lines")
    return int(value)


async def _print(client: CriClient, args: argparse.Namespace) -> None:
    container = await _identify(client, args.id)
    path = (await client.container(container)).status.log_path
    if not path:
        raise FailedPrecondition(f"container {container} has no log file")
    out = _Printer(timestamps=args.timestamps)
    with closing(LogReader(Path(path))) as reader:
        if args.tail is not None:
            out.select(last_lines(reader.pieces(), args.tail), before=reader.offset)
            reader.rewind()
        for piece in reader.pieces():
            out.show(piece)
        if args.follow:
            out.select_all()
            async with aclosing(follow(reader, partial(_has_ended, client, container))) as pieces:
                async for piece in pieces:
                    out.show(piece)


async def _identify(client: CriClient, prefix: str) -> str:
    """Return the full ID of a container."""
    if ids.is_ours(prefix):  # the list fails while the upstream is unavailable
        return prefix
    return find("container", prefix, (container.id for container in await client.containers()))


async def _has_ended(client: CriClient, container: str) -> bool:
    """Return whether the container has ended. While the daemon is unavailable, assume that it has not."""
    try:
        return (await client.container(container)).status.state == cri.CONTAINER_EXITED
    except NotFound:
        return True
    except (Unavailable, DeadlineExceeded):
        return False


class _Printer:
    """A writer of log entries to stdout and stderr, which joins partial entries to lines."""

    def __init__(self, *, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._sinks = dict(zip(STREAMS, (_Sink(sys.stdout), _Sink(sys.stderr)), strict=True))
        self._within: dict[bytes, bool] = {}
        """For each stream that is within a line: whether that line is shown."""
        self.select_all()

    def select_all(self) -> None:
        """Show every line that begins after this call."""
        self.select(set(), before=0)

    def select(self, lines: set[int], *, before: int) -> None:
        """Hide the lines that begin before the offset ``before``, except those that begin at ``lines``."""
        self._selected, self._before = lines, before

    def show(self, piece: Piece) -> None:
        """Write an entry, if its line is selected."""
        continues = piece.stream in self._within
        shown = self._within.get(piece.stream, self._is_selected(piece.offset))
        if piece.ends:
            self._within.pop(piece.stream, None)
        else:
            self._within[piece.stream] = shown
        if shown:
            head = piece.time + b" " if self._timestamps and not continues else b""
            self._sinks[piece.stream].write(head + piece.content, b"\n" if piece.ends else b"")

    def _is_selected(self, offset: int) -> bool:
        return offset >= self._before or offset in self._selected


class _Sink:
    """A writer to stdout or stderr. Control characters are escaped if the stream is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._buffer: BinaryIO = stream.buffer
        self._escape = stream.isatty()

    def write(self, content: bytes, end: bytes) -> None:
        """Write and flush, so that a follower sees the line at once."""
        if self._escape:
            decoded = content.removesuffix(b"\r").decode(errors="replace")
            content = "\t".join(text.printable(part) for part in decoded.split("\t")).encode()
        self._buffer.write(content + end)
        self._buffer.flush()
