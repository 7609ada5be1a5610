"""What processes take of the machine: CPU time by cgroup, memory by process, and how idle it is meanwhile."""

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
    """A cgroup by its path, the same in all hierarchies; made when the first process joins."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._cgroups = Cgroups()
        self._reader = CgroupReader(self._cgroups.version)

    def join(self, pid: int) -> None:
        """Take in a process and all that descend from it."""
        for member in (pid, *(child.pid for child in descendants(pid))):
            self._cgroups.join(self.path, member)

    def cpu(self) -> float:
        """Milliseconds of CPU time that its processes took, those of groups below and ended ones included."""
        sample = self._reader.read(self.path)
        return (sample.cpu or 0) / 1e6 if sample else 0.0

    def pids(self) -> list[int]:
        """All processes in it and below."""
        return self._cgroups.pids(self.path)

    def memory(self) -> int:
        """Resident bytes of all its processes; what they share is counted for each of them."""
        return sum(map(resident, self.pids()))

    @contextmanager
    def peak(self) -> Iterator[list[int]]:
        """Sample :meth:`memory` meanwhile; the list holds the highest of it at the end."""
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
    """Bytes of a process that are in memory; 0 when it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def proportional(pid: int) -> int:
    """Bytes in memory, shared ones divided among those that share them; 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def program(pid: int) -> str:
    """The name of a process's program; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name
    return ""


class Idle:
    """How much of the machine's CPU time nobody used since this was made."""

    def __init__(self) -> None:
        self._began = _ticks()

    def fraction(self) -> float:
        idle, total = (now - then for now, then in zip(_ticks(), self._began, strict=True))
        return idle / total if total else 1.0


def _ticks() -> tuple[int, int]:
    """Idle and all clock ticks of all processors (proc(5), /proc/stat)."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        values = [int(word) for word in file.readline().split()[1:9]]
    return values[3] + values[4], sum(values)
