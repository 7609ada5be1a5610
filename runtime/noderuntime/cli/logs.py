"""``noderuntime logs``: what a container said, its standard error on ours.

A terminal gets no control characters of the container's; a pipe gets every byte as it is.
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
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the container has ended")
    parser.add_argument("--tail", type=_count, metavar="N", help="begin with the last N lines")
    parser.add_argument("--timestamps", action="store_true", help="begin each line with its time")
    parser.add_argument("id", help="of a container; it may be cut")
    chosen = parser.parse_args(arguments)
    options.ask(chosen.socket, partial(_print, chosen=chosen))
    return 0


def _count(typed: str) -> int:
    if not typed.isdecimal():
        raise argparse.ArgumentTypeError(f"{typed!r} is no number of lines")
    return int(typed)


async def _print(client: CriClient, chosen: argparse.Namespace) -> None:
    container = await _identify(client, chosen.id)
    path = (await client.container(container)).status.log_path
    if not path:
        raise FailedPrecondition(f"container {container} keeps no log")
    out = _Printer(timestamps=chosen.timestamps)
    with closing(LogReader(Path(path))) as reader:
        if chosen.tail is not None:
            out.only(last_lines(reader.pieces(), chosen.tail), before=reader.offset)
            reader.rewind()
        for piece in reader.pieces():
            out.show(piece)
        if chosen.follow:
            out.all()
            async with aclosing(follow(reader, partial(_has_ended, client, container))) as pieces:
                async for piece in pieces:
                    out.show(piece)


async def _identify(client: CriClient, typed: str) -> str:
    """Find the full ID. One that is full already needs no list, which fails while one side is away."""
    if ids.is_ours(typed):
        return typed
    return find("container", typed, (one.id for one in await client.containers()))


async def _has_ended(client: CriClient, container: str) -> bool:
    """Ask; a daemon that is away ends nothing, logs go on without it."""
    try:
        return (await client.container(container)).status.state == cri.CONTAINER_EXITED
    except NotFound:
        return True
    except (Unavailable, DeadlineExceeded):
        return False


class _Printer:
    """Writes pieces to our two streams, each joined to the one before."""

    def __init__(self, *, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._sinks = dict(zip(STREAMS, (_Sink(sys.stdout), _Sink(sys.stderr)), strict=True))
        self._within: dict[bytes, bool] = {}
        """For each stream in the middle of a line whether that one is shown."""
        self.all()

    def all(self) -> None:
        """Show every line that begins from now on."""
        self.only(set(), before=0)

    def only(self, lines: set[int], *, before: int) -> None:
        """Of the lines that begin before an offset show only those that begin at these."""
        self._wanted, self._before = lines, before

    def show(self, piece: Piece) -> None:
        """Write a piece."""
        continues = piece.stream in self._within
        shown = self._within.get(piece.stream, self._wants(piece.offset))
        if piece.ends:
            self._within.pop(piece.stream, None)
        else:
            self._within[piece.stream] = shown
        if shown:
            head = piece.time + b" " if self._timestamps and not continues else b""
            self._sinks[piece.stream].write(head + piece.content, b"\n" if piece.ends else b"")

    def _wants(self, offset: int) -> bool:
        return offset >= self._before or offset in self._wanted


class _Sink:
    """One of our streams: what goes to a terminal is made harmless."""

    def __init__(self, stream: TextIO) -> None:
        self._buffer: BinaryIO = stream.buffer
        self._harmless = stream.isatty()

    def write(self, content: bytes, end: bytes) -> None:
        """Write now: a follower waits for it."""
        if self._harmless:
            said = content.removesuffix(b"\r").decode(errors="replace")
            content = "\t".join(text.printable(part) for part in said.split("\t")).encode()
        self._buffer.write(content + end)
        self._buffer.flush()
