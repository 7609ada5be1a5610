"""Processes of the node: told apart by start time, signalled and awaited by pidfd.

All calls here are short reads of ``/proc`` or single system calls: they do not
block and need no thread.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal as signals
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noderuntime.core.errors import host_error
from noderuntime.node.host.base import ProcessRef

_DEAD = (b"Z", b"X", b"x")


def identify(pid: int) -> ProcessRef | None:
    """Return who has the PID now; None if nobody has or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in _DEAD else ProcessRef(pid, int(fields[19]))


def signal(process: ProcessRef, signo: int) -> bool:
    """Send a signal to that very process; False if it is gone."""
    with _pidfd(process) as pidfd:
        if pidfd is None:
            return False
        try:
            signals.pidfd_send_signal(pidfd, signo)
        except ProcessLookupError:
            return False
        except OSError as error:
            raise host_error(f"signal {signo} to {process.pid}", error) from error
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


async def readable(*fds: int) -> None:
    """Wait until one of the descriptors can be read; a pidfd can when its process has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    for fd in fds:
        loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        for fd in fds:
            loop.remove_reader(fd)


def is_readable(fd: int) -> bool:
    """Tell whether a descriptor can be read now."""
    asked = select.poll()
    asked.register(fd, select.POLLIN)
    return bool(asked.poll(0))


async def writable(fd: int) -> None:
    """Wait until a descriptor can be written to."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)


def kill_tree(process: ProcessRef) -> None:
    """SIGKILL a process and everything that descends from it.

    It is stopped first, so that it makes no more children while they are looked for.
    """
    if signal(process, signals.SIGSTOP):
        for member in (*descendants(process.pid), process):
            signal(member, signals.SIGKILL)


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
    """Open a pidfd, then look whether the PID had not gone to another process before."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield pidfd if identify(process.pid) == process else None
    finally:
        os.close(pidfd)
