"""``noderuntime logs``: joined entries, the last lines, following across rotations."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from fakecri import CONTAINER, FakeRuntime

from noderuntime.cli.logfile import LogReader, Piece, follow, last_lines
from noderuntime.cri.v1 import api_pb2

Run = Callable[..., tuple[int, str, str]]


def _line(content: str, tag: str = "F", stream: str = "stdout", time: str = "T1") -> str:
    return f"{time} {stream} {tag} {content}\n"


@pytest.fixture
def log(tmp_path: Path, runtime: FakeRuntime) -> Path:
    path = tmp_path / "logs" / "0.log"
    path.parent.mkdir()
    path.write_text("")
    runtime.status.log_path = str(path)
    return path


def test_logs_keeps_streams_apart_and_joins_partial_entries(run: Run, log: Path) -> None:
    log.write_text(
        _line("one") + _line("ha", "P") + _line("oops", stream="stderr") + _line("lf") + _line("end", "P")
    )
    assert run("logs", CONTAINER) == (0, "one\nhalf\nend", "oops\n")


def test_timestamps_are_those_of_a_lines_first_entry(run: Run, log: Path) -> None:
    log.write_text(_line("ha", "P", time="T1") + _line("lf", time="T2") + _line("", time="T3"))
    assert run("logs", "--timestamps", CONTAINER)[1] == "T1 half\nT3 \n"


@pytest.mark.parametrize(
    ("count", "shown"),
    [("0", ""), ("1", "three\n"), ("2", "long two\nthree\n"), ("9", "one\nlong two\nthree\n")],
)
def test_tail_counts_whole_lines(run: Run, log: Path, count: str, shown: str) -> None:
    log.write_text(_line("one") + _line("long ", "P") + _line("two") + _line("three"))
    assert run("logs", "--tail", count, CONTAINER)[1] == shown


def test_tail_joins_a_line_interrupted_by_the_other_stream(run: Run, log: Path) -> None:
    log.write_text(
        _line("no") + _line("a", "P") + _line("x", stream="stderr") + _line("b") + _line("open", "P")
    )
    assert run("logs", "--tail", "2", CONTAINER) == (0, "ab\nopen", "")


def test_logs_prints_malformed_lines_unchanged(run: Run, log: Path) -> None:
    log.write_text("garbage\n" + _line("fine") + "T1 stdout")
    assert run("logs", CONTAINER)[1] == "garbage\nfine\n"


def test_logs_fails_for_a_container_without_a_log(run: Run) -> None:
    status, _, err = run("logs", CONTAINER)
    assert (status, err) == (1, f"noderuntime: container {CONTAINER} has no log file\n")


def test_logs_reports_a_missing_file_with_one_line(run: Run, log: Path) -> None:
    log.unlink()
    status, _, err = run("logs", CONTAINER)
    assert status == 1
    assert err.count("\n") == 1
    assert str(log) in err


def test_logs_escapes_control_characters_on_terminals_only(socket: Path, log: Path) -> None:
    log.write_bytes(b"T1 stdout F \x1b[31mred\t\xff\r\n")
    command = [sys.executable, "-m", "noderuntime", "logs", "--socket", str(socket), CONTAINER]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"\x1b[31mred\t\xff\r\n"
    reader, terminal = pty.openpty()
    subprocess.run(command, stdout=terminal, check=True)
    os.close(terminal)
    output = os.read(reader, 1000).decode()
    os.close(reader)
    assert "\\x1b[31mred" in output
    assert "\x1b" not in output
    assert output.endswith("\ufffd\r\n")


class Ended:
    """A fake of the check whether the container has ended. ``asked`` is set by the first call."""

    def __init__(self) -> None:
        self.now = False
        self.asked = asyncio.Event()

    async def __call__(self) -> bool:
        self.asked.set()
        return self.now


@pytest.fixture
def reader(log: Path) -> Iterator[LogReader]:
    reader = LogReader(log)
    yield reader
    reader.close()


async def _next(pieces: AsyncIterator[Piece]) -> bytes:
    return (await asyncio.wait_for(anext(pieces), 10)).content


async def test_follow_loses_no_line_at_a_rotation(log: Path, reader: LogReader) -> None:
    ended = Ended()
    with log.open("a") as writer:
        async with aclosing(follow(reader, ended)) as pieces:
            writer.write(_line("one"))
            writer.flush()
            assert await _next(pieces) == b"one"
            writer.write(_line("two")[:-3])
            writer.flush()
            waiting = asyncio.ensure_future(_next(pieces))
            await asyncio.wait_for(ended.asked.wait(), 10)
            writer.write(_line("two")[-3:])
            writer.flush()
            assert await waiting == b"two"
            log.rename(log.with_suffix(".old"))
            writer.write(_line("last of the old"))
            writer.flush()
            log.write_text(_line("first of the new"))
            assert await _next(pieces) == b"last of the old"
            assert await _next(pieces) == b"first of the new"


async def test_follow_reads_to_the_end_after_the_container_ended(log: Path, reader: LogReader) -> None:
    ended = Ended()
    ended.now = True
    log.write_text(_line("one"))
    async with asyncio.timeout(20):
        contents = [piece.content async for piece in _late(follow(reader, ended), log)]
    assert contents == [b"one", b"two"]


async def _late(pieces: AsyncIterator[Piece], log: Path) -> AsyncIterator[Piece]:
    """Yield the pieces and write one more line after the first."""
    async for piece in pieces:
        yield piece
        if piece.content == b"one":
            with log.open("a") as writer:
                writer.write(_line("two"))


def test_follow_of_an_exited_container_prints_and_exits(run: Run, log: Path, runtime: FakeRuntime) -> None:
    log.write_text(_line("one") + _line("two"))
    runtime.status.state = api_pb2.CONTAINER_EXITED
    assert run("logs", "-f", "--tail", "1", CONTAINER)[:2] == (0, "two\n")


def test_reader_splits_an_endless_line(log: Path, reader: LogReader) -> None:
    log.write_bytes(b"T1 stdout F " + b"x" * (3 << 20))
    assert max(len(piece.content) for piece in reader.pieces()) <= 1 << 20
    reader.rewind()
    assert last_lines(reader.pieces(), 1)
