"""Reads and writes the files of a cgroup. Blocks, so call it in a lane.

A group of cgroup v2 can be threaded: it contains threads, and reading its processes or killing it fails with
EOPNOTSUPP. Its threads belong to processes of the nearest ancestor that is not threaded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from noderuntime.core.errors import host_error

_GONE = (errno.ENOENT, errno.ENODEV)
_THAWED = (("freezer.state", b"THAWED"), ("cgroup.freeze", b"0"))
"""The file that freezes a group, in v1 and in v2, and the value that thaws it."""


def tree(group: Path) -> Iterator[Path]:
    """Yield the groups below a group, and then the group itself."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(group) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                yield from tree(Path(entry.path))
    yield group


def pids(group: Path) -> list[int]:
    """Return the PIDs in the group, or those of its threads if it is threaded. Empty if it is missing."""
    try:
        return _numbers(group / "cgroup.procs")
    except OSError as error:
        if error.errno in _GONE:
            return []
        if error.errno != errno.EOPNOTSUPP:
            raise host_error(f"list cgroup {group}", error) from error
    try:
        threads = _numbers(group / "cgroup.threads")
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise host_error(f"list the threads of cgroup {group}", error) from error
    return list(dict.fromkeys(pid for thread in threads if (pid := _process_of(thread))))


def kill(group: Path) -> bool:
    """SIGKILL all processes in the group and below it, by ``cgroup.kill``. Return False if unsupported.

    Requires cgroup v2, Linux 5.14, and a group that is not threaded.
    """
    try:
        _write(group / "cgroup.kill", b"1")
    except OSError as error:
        if error.errno in (*_GONE, errno.EOPNOTSUPP):
            return False
        raise host_error(f"kill cgroup {group}", error) from error
    return True


def thaw(group: Path) -> None:
    """Thaw the group. No error if it is missing."""
    for name, value in _THAWED:
        file = group / name
        try:
            if file.read_bytes().strip() != value:  # a write takes milliseconds
                _write(file, value)
        except OSError as error:
            if error.errno not in _GONE:
                raise host_error(f"thaw cgroup {group}", error) from error


def join(group: Path, pid: int) -> None:
    """Move a process into the group."""
    try:
        _write(group / "cgroup.procs", str(pid).encode())
    except OSError as error:
        raise host_error(f"move process {pid} into cgroup {group}", error) from error


def _numbers(file: Path) -> list[int]:
    return [int(number) for number in file.read_bytes().split()]


def _process_of(thread: int) -> int | None:
    """Return the PID of the process that a thread belongs to, or None if the thread has ended."""
    try:
        status = Path(f"/proc/{thread}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(b"Tgid:")), None)


def _write(file: Path, value: bytes) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)
