"""Processes of the node: told apart by start time, signalled and awaited by pidfd.

All calls here are short reads of ``/proc`` or single system calls: they do not
block and need no thread.
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
    """Return a pidfd, which the caller closes; None when no process has the PID.

    For a thread's ID, which is no process's, the kernel reports ENOENT or EINVAL, depending on its version.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.ENOENT, errno.EINVAL):
            return None
        raise host_error(f"open a pidfd of process {pid}", error) from error


def read_pid(file: Path) -> int | None:
    """Return the PID in a file that another program writes; None while it holds none. May block."""
    try:
        pid = int(file.read_bytes())
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None


def identify(pid: int) -> ProcessRef | None:
    """Return the process that has the PID now; None if there is no such process or it is a zombie."""
    pidfd = open_pidfd(pid)
    if pidfd is None:  # also for a thread's ID, which has a directory in /proc
        return None
    os.close(pidfd)
    with os_errors(f"look up process {pid}"):
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in _DEAD else ProcessRef(pid, int(fields[19]))


def signal(process: ProcessRef, signo: int) -> bool:
    """Send a signal to that very process; False if it is gone."""
    with _pidfd(process) as pidfd, os_errors(f"signal {signo} to {process.pid}"):
        if pidfd is None:
            return False
        try:
            signals.pidfd_send_signal(pidfd, signo)
        except ProcessLookupError:
            return False
        return True


async def wait(process: ProcessRef, timeout: float) -> bool:
    """Wait until the process has ended; False when the timeout came first."""
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

    Of several threads, one in uninterruptible sleep (D) is described, because the others wait for it.
    """
    threads = [_thread(task) for task in Path(f"/proc/{process.pid}/task").glob("*")]
    known = [(state, wchan) for state, wchan in threads if state]
    if not known:
        return f"process {process.pid} is ending"
    state, wchan = next((thread for thread in known if thread[0] == "D"), known[0])
    return f"process {process.pid} is in state {state}" + (f", in {wchan}" if wchan else "")


def _thread(task: Path) -> tuple[str, str]:
    """Return a thread's state and the kernel's function that it sleeps in; empty where it has ended."""
    try:
        stat, wchan = (task / "stat").read_bytes(), (task / "wchan").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return chr(stat[stat.rindex(b")") + 2]), "" if wchan == "0" else wchan


async def readable(*fds: int, until: asyncio.Future[Any] | None = None) -> None:
    """Wait until one of the descriptors can be read, or ``until`` is done.

    A pidfd can be read when its process has ended.
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
    """Wait until a descriptor can be written to."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)


def with_arguments(*arguments: str) -> list[ProcessRef]:
    """List the processes that have all of the arguments in their command lines."""
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
    """SIGKILL a process and everything that descends from it."""
    for member in stop_tree(process):
        signal(member, signals.SIGKILL)


def stop_tree(process: ProcessRef) -> list[ProcessRef]:
    """Stop a process, so that it makes no more children, and return it with its descendants."""
    return [*descendants(process.pid), process] if signal(process, signals.SIGSTOP) else []


def descendants(pid: int) -> list[ProcessRef]:
    """List the processes below one, the nearest first."""
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
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            yield from map(int, children.read_bytes().split())
        except (FileNotFoundError, ProcessLookupError):
            continue


@contextmanager
def _pidfd(process: ProcessRef) -> Iterator[int | None]:
    """Open a pidfd, then check that the PID has not gone to another process before; None if it has."""
    pidfd = open_pidfd(process.pid)
    try:
        yield pidfd if identify(process.pid) == process else None
    finally:
        if pidfd is not None:
            os.close(pidfd)
