"""Processes of the node: identified by PID and start time, signalled and awaited by pidfd.

All functions are short reads of ``/proc`` or single system calls, which do not
block and need no thread, unless their docstrings say otherwise.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal as signals
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noderuntime.core.errors import host_error, os_errors
from noderuntime.node.host.base import ProcessRef

_DEAD = (b"Z", b"X", b"x")


def open_pidfd(pid: int) -> int | None:
    """Return a pidfd, which the caller must close, or None if no process has the PID.

    For a thread's ID pidfd_open(2) fails with ENOENT or EINVAL, depending on the kernel's version.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.ENOENT, errno.EINVAL):
            return None
        raise host_error(f"open a pidfd of process {pid}", error) from error


def read_pid(file: Path) -> int | None:
    """Return the PID in a file that another program writes, or None if it contains none. Can block."""
    try:
        pid = int(_read(file))
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None


def identify(pid: int, names: str = "") -> ProcessRef | None:
    """Return the identity of the process with a PID, or None if there is none or it is a zombie.

    None also if its command line does not contain ``names``, which blocks: it is read from the memory of the
    process, which can be on a volume that hangs.
    """
    pidfd = open_pidfd(pid)
    if pidfd is None:  # also for the ID of a thread, which has a directory in /proc too
        return None
    os.close(pidfd)
    with os_errors(f"look up process {pid}"):
        try:
            stat = _read(f"/proc/{pid}/stat")
            if names and os.fsencode(names) not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return None
        except (FileNotFoundError, ProcessLookupError):
            return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in _DEAD else ProcessRef(pid, int(fields[19]))


def _read(path: str | Path) -> bytes:
    """Return the content of a file of less than 4 KiB, in half of the time that a file object takes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def signal(process: ProcessRef, signo: int) -> bool:
    """Send a signal to a process. Return False if it has ended."""
    with _pidfd(process) as pidfd, os_errors(f"signal {signo} to {process.pid}"):
        if pidfd is None:
            return False
        try:
            signals.pidfd_send_signal(pidfd, signo)
        except ProcessLookupError:
            return False
        return True


async def wait(process: ProcessRef, timeout: float) -> bool:
    """Wait for the end of a process. Return False if it has not ended after ``timeout`` seconds."""
    with _pidfd(process) as pidfd:
        if pidfd is None:
            return True
        try:
            async with asyncio.timeout(timeout):
                await readable(pidfd)
        except TimeoutError:
            return False
        return True


def stuck(process: ProcessRef) -> str:
    """Describe a process that does not end: ``process 7 is in state D, in nfs_wait_bit_killable``.

    If a thread is in uninterruptible sleep (D), describe that thread, because the others wait for it.
    """
    threads = [_thread(task) for task in _tasks(process.pid)]
    known = [(state, wchan) for state, wchan in threads if state]
    if not known:
        return f"process {process.pid} is ending"
    state, wchan = next((thread for thread in known if thread[0] == "D"), known[0])
    return f"process {process.pid} is in state {state}" + (f", in {wchan}" if wchan else "")


def _thread(task: Path) -> tuple[str, str]:
    """Return a thread's state and the kernel function in which it sleeps. Both are empty if it has ended."""
    try:
        stat, wchan = (task / "stat").read_bytes(), (task / "wchan").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return chr(stat[stat.rindex(b")") + 2]), "" if wchan == "0" else wchan


async def readable(*fds: int, until: asyncio.Future[Any] | None = None) -> None:
    """Wait until one of the descriptors is readable, or ``until`` is done.

    A pidfd is readable once its process has ended (pidfd_open(2)).
    """
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()

    def wake(_: object) -> None:
        ready.set()

    for fd in fds:
        loop.add_reader(fd, ready.set)
    if until is not None:
        until.add_done_callback(wake)
    try:
        await ready.wait()
    finally:
        for fd in fds:
            loop.remove_reader(fd)
        if until is not None:
            until.remove_done_callback(wake)


async def writable(fd: int) -> None:
    """Wait until a descriptor is writable."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)


def with_arguments(*arguments: str) -> list[ProcessRef]:
    """Return the processes whose command lines contain all of the arguments.

    Blocks, see :func:`identify`.
    """
    wanted = set(map(os.fsencode, arguments))
    found: list[ProcessRef] = []
    for directory in Path("/proc").glob("[0-9]*"):
        process = identify(int(directory.name))
        try:
            present = (directory / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if process is not None and wanted.issubset(present):
            found.append(process)
    return found


def kill_tree(process: ProcessRef) -> None:
    """SIGKILL a process and its descendants."""
    for member in stop_tree(process):
        signal(member, signals.SIGKILL)


def stop_tree(process: ProcessRef) -> list[ProcessRef]:
    """SIGSTOP a process, so that it creates no more children, and return it after its descendants."""
    return [*descendants(process.pid), process] if signal(process, signals.SIGSTOP) else []


def descendants(pid: int) -> list[ProcessRef]:
    """Return the descendants of a process. A parent precedes its children."""
    found: list[ProcessRef] = []
    waiting = [pid]
    while waiting:
        for child in _children(waiting.pop()):
            process = identify(child)
            if process is not None:
                found.append(process)
                waiting.append(child)
    return found


def _children(pid: int) -> Iterator[int]:
    for task in _tasks(pid):
        try:
            yield from map(int, (task / "children").read_bytes().split())
        except (FileNotFoundError, ProcessLookupError):
            continue


def _tasks(pid: int) -> list[Path]:
    """Return the directories of a process's threads. They are gone once the process has been reaped."""
    directory = Path(f"/proc/{pid}/task")
    try:
        return [directory / name for name in os.listdir(directory)]
    except (FileNotFoundError, ProcessLookupError):
        return []


@contextmanager
def _pidfd(process: ProcessRef) -> Iterator[int | None]:
    """Yield a pidfd, or None if the process has ended. The identity is checked after the pidfd is opened."""
    pidfd = open_pidfd(process.pid)
    try:
        yield pidfd if identify(process.pid) == process else None
    finally:
        if pidfd is not None:
            os.close(pidfd)
