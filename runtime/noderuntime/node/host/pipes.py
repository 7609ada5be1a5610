"""Programs that copy from pipes of their own to ours, such as the output of a process that they run."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def is_idle(pid: int) -> bool:
    """Return whether a program has read all that is in its pipes, and all its threads sleep. Blocks."""
    if any(_unread(pipe) for pipe in _own_pipes(pid)):
        return False
    return all(_state(task) == "S" for task in _entries(pid, "task"))


def end_copies(pid: int) -> None:
    """End a program's copies to pipes that are no longer read. Blocks.

    The program waits for input that other processes can send. It gets a byte, whose copy fails with EPIPE.
    """
    for pipe in _own_pipes(pid):
        with suppress(BlockingIOError):  # it is full
            os.write(pipe, b"\0")


def _own_pipes(pid: int) -> Iterator[int]:
    """Open each pipe that a process reads from, but for its standard input."""
    for entry in _entries(pid, "fd"):
        with suppress(OSError):  # closed meanwhile
            if entry.name != "0" and os.readlink(entry).startswith("pipe:") and _is_read(pid, entry.name):
                fd = os.open(entry, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    yield fd
                finally:
                    os.close(fd)


def _entries(pid: int, directory: str) -> list[Path]:
    """List a directory of a process; empty if the process has ended."""
    try:
        return list(Path(f"/proc/{pid}/{directory}").iterdir())
    except OSError:
        return []


def _is_read(pid: int, fd: str) -> bool:
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines())
    return int(fields["flags"], 8) & os.O_ACCMODE == os.O_RDONLY


def _unread(pipe: int) -> int:
    """Return the number of bytes in a pipe."""
    [count] = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(count)


def _state(task: Path) -> str:
    """Return the state of a thread (proc_pid_stat(5)); S if it has ended."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "S"
