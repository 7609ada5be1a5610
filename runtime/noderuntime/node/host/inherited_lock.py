"""A lock on a directory that programs inherit, so that it outlives a daemon that is killed.

The lock (flock(2)) belongs to an open file that the programs and their children share with the daemon. If the
daemon dies, or cannot kill a program, the lock stays held until the last of them has ended. A later block
kills the processes that hold the lock, and waits for it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.blocking import apart
from noderuntime.core.errors import host_error
from noderuntime.node.host.process import identify, kill_tree

_log = log.get(__name__)

_SECONDS = 5.0
"""How long to wait for the ends of killed programs."""
_FLAGS = re.compile(r"^flags:\s*([0-7]+)$", re.MULTILINE)


@asynccontextmanager
async def inherited_lock(
    directory: Path, what: str, *, seconds: float = _SECONDS
) -> AsyncIterator[tuple[int, ...]]:
    """Acquire the directory's lock and yield the descriptors that the block's programs must inherit.

    Programs of an earlier block that still run are killed; ``what`` names them in errors. DeadlineExceeded if
    they do not end within ``seconds``. A block that succeeds releases the lock, even if its programs left
    others running. If the directory is missing, nothing is locked.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield ()
        return
    except OSError as error:
        raise host_error(f"lock {directory}", error) from error
    try:
        if not _take(fd):
            await _end_holders(fd, what, seconds)
        yield (fd,)
        fcntl.flock(fd, fcntl.LOCK_UN)  # unlike close(2), also for processes that inherited it
    finally:
        os.close(fd)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _end_holders(fd: int, what: str, seconds: float) -> None:
    """Kill the programs that hold the lock, and acquire it."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    pids = await apart(lambda: _holders(path), what=f"search for {what}", abandon=True)
    _log.warning("programs of an earlier call still ran and were killed", what=what, pids=pids)
    for pid in pids:
        if (process := identify(pid)) is not None:
            kill_tree(process)
    ended = f"the end of {what} (PID {', '.join(map(str, pids)) or 'unknown'})"
    waiting = os.dup(fd)  # the caller can close fd, and its number can be reused, before the thread uses it

    def wait() -> None:
        try:
            fcntl.flock(waiting, fcntl.LOCK_EX)
        finally:
            os.close(waiting)

    await apart(wait, what=ended, seconds=seconds, subject=path, abandon=True)


def _holders(path: str) -> list[int]:
    """Return the PIDs of the processes that hold the lock of a directory through an inherited descriptor."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal() and _holds(entry, path)]


def _holds(pid: str, path: str) -> bool:
    with suppress(OSError):  # it has ended, or may not be inspected
        for number in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{number}") == path and _is_inherited(pid, number):
                return True
    return False


def _is_inherited(pid: str, number: str) -> bool:
    """Return whether a descriptor holds a lock and survives execve(2).

    The daemon's own descriptor does not, nor does that of a child that has not called execve yet.
    """
    info = Path(f"/proc/{pid}/fdinfo/{number}").read_text(encoding="ascii")
    flags = _FLAGS.search(info)
    return "FLOCK" in info and flags is not None and not int(flags[1], 8) & os.O_CLOEXEC
