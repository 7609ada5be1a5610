"""The machine's resources: CPU time by cgroup, memory by process, and the idle fraction."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from noderuntime.lifecycle.stats.cgroup_sample import CgroupReader
from noderuntime.node.host.cgroup import Cgroups
from noderuntime.node.host.process import descendants

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_SECONDS = 0.02


class Group:
    """A cgroup by its path, the same in all hierarchies; created when the first process joins."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._cgroups = Cgroups()
        self._reader = CgroupReader(self._cgroups.version)

    def join(self, pid: int) -> None:
        """Move a process and its descendants into the cgroup."""
        for member in (pid, *(child.pid for child in descendants(pid))):
            self._cgroups.join(self.path, member)

    def cpu(self) -> float:
        """Return the CPU time in milliseconds, with that of descendant groups and ended processes."""
        sample = self._reader.read(self.path)
        return (sample.cpu or 0) / 1e6 if sample else 0.0

    def pids(self) -> list[int]:
        """Return all processes in the cgroup and below."""
        return self._cgroups.pids(self.path)

    def memory(self) -> int:
        """Return the resident bytes of all its processes; shared pages are counted once per process."""
        return sum(map(resident, self.pids()))

    @contextmanager
    def peak(self) -> Iterator[list[int]]:
        """Sample :meth:`memory` during the block; the list then holds the maximum."""
        highest, over = [0], threading.Event()

        def sample() -> None:
            while not over.wait(_SAMPLE_SECONDS):
                highest[0] = max(highest[0], self.memory())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield highest
        finally:
            over.set()
            thread.join()


def resident(pid: int) -> int:
    """Return the resident bytes of a process; 0 if it does not exist."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def proportional(pid: int) -> int:
    """Return a process's proportional set size in bytes; 0 if it does not exist."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def program(pid: int) -> str:
    """Return the name of a process's program; empty if it does not exist."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name
    return ""


class Idle:
    """The machine's idle CPU time since this object was created."""

    def __init__(self) -> None:
        self._began = _ticks()

    def fraction(self) -> float:
        """Return the idle fraction, from 0 to 1."""
        idle, total = (now - then for now, then in zip(_ticks(), self._began, strict=True))
        return idle / total if total else 1.0


def _ticks() -> tuple[int, int]:
    """Return the idle ticks and all ticks of all processors (proc(5), /proc/stat)."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        values = [int(word) for word in file.readline().split()[1:9]]
    return values[3] + values[4], sum(values)
