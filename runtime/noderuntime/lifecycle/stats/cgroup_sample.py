"""Reads a sample of a cgroup, v1 or v2: the counters of CRI's CPU, memory, swap and process statistics.

A counter that the kernel does not provide (no controller, no PSI) is None, never 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path("/sys/fs/cgroup")

_UNLIMITED = 1 << 62
"""v1 represents no limit as the largest number of pages."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """One line of a PSI file: averages in percent, total in microseconds."""

    avg10: float
    avg60: float
    avg300: float
    total: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters of a cgroup at one time; sizes in bytes, times in nanoseconds."""

    timestamp: int
    """Since the epoch."""
    cpu: int | None = None
    """CPU time used since the cgroup was created."""
    memory: int | None = None
    inactive_file: int = 0
    """Page cache that the kernel reclaims first."""
    rss: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    memory_limit: int | None = None
    swap: int | None = None
    swap_limit: int | None = None
    processes: int | None = None
    pressure: Mapping[str, Mapping[str, Pressure]] = field(default_factory=dict)
    """By resource (``cpu``, ``memory``, ``io``), then ``some`` and ``full``."""


class CgroupReader:
    """Reads the cgroups of one node. Every call blocks for a few file reads."""

    def __init__(self, version: Literal[1, 2], root: Path = ROOT) -> None:
        self._version = version
        self._root = root

    def read(self, path: str) -> Sample | None:
        """Return a sample of a cgroup by its path in the hierarchies, or None if it does not exist."""
        return self._read_v2(path) if self._version == 2 else self._read_v1(path)

    def _read_v1(self, path: str) -> Sample | None:
        cpu, memory, pids = (f"{self._root}/{name}/{path}" for name in ("cpuacct", "memory", "pids"))
        used = number(f"{cpu}/cpuacct.usage")
        stat = table(f"{memory}/memory.stat")
        if used is None and not stat:
            return None
        usage = number(f"{memory}/memory.usage_in_bytes")
        limit = _limit(f"{memory}/memory.limit_in_bytes")
        with_swap = number(f"{memory}/memory.memsw.usage_in_bytes")
        swap_limit = _limit(f"{memory}/memory.memsw.limit_in_bytes")
        return Sample(
            timestamp=time.time_ns(),
            cpu=used,
            memory=usage,
            inactive_file=stat.get("total_inactive_file", 0),
            rss=stat.get("total_rss"),
            page_faults=stat.get("total_pgfault"),
            major_page_faults=stat.get("total_pgmajfault"),
            memory_limit=limit,
            swap=None if with_swap is None or usage is None else max(with_swap - usage, 0),
            swap_limit=None if swap_limit is None or limit is None else max(swap_limit - limit, 0),
            processes=number(f"{pids}/pids.current"),
        )

    def _read_v2(self, path: str) -> Sample | None:
        group = f"{self._root}/{path}"
        cpu = table(f"{group}/cpu.stat").get("usage_usec")
        stat = table(f"{group}/memory.stat")
        if cpu is None and not stat:
            return None
        return Sample(
            timestamp=time.time_ns(),
            cpu=None if cpu is None else cpu * 1000,
            memory=number(f"{group}/memory.current"),
            inactive_file=stat.get("inactive_file", 0),
            rss=stat.get("anon"),
            page_faults=stat.get("pgfault"),
            major_page_faults=stat.get("pgmajfault"),
            memory_limit=_limit(f"{group}/memory.max"),
            swap=number(f"{group}/memory.swap.current"),
            swap_limit=_limit(f"{group}/memory.swap.max"),
            processes=number(f"{group}/pids.current"),
            pressure={name: pressure(f"{group}/{name}.pressure") for name in ("cpu", "memory", "io")},
        )


def text(file: str) -> str:
    """Return the content of a small file; empty if it cannot be read."""
    try:
        with open(file, "rb", buffering=0) as handle:
            return handle.read(1 << 16).decode("ascii", "replace")
    except OSError:
        return ""


def number(file: str) -> int | None:
    """Return the number in a file, or None if it contains no number."""
    content = text(file).strip()
    return int(content) if content.isdecimal() else None


def _limit(file: str) -> int | None:
    """Return a limit, or None for no limit ("max", or v1's largest number)."""
    limit = number(file)
    return None if limit is None or limit >= _UNLIMITED else limit


def table(file: str) -> dict[str, int]:
    """Return the pairs of a file whose lines are a word and a number."""
    pairs = (line.split() for line in text(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def pressure(file: str) -> dict[str, Pressure]:
    """Return the lines ``some`` and ``full`` of a PSI file."""
    lines: dict[str, Pressure] = {}
    for line in text(file).splitlines():
        kind, *rest = line.split()
        values = dict(word.partition("=")[::2] for word in rest)
        try:
            lines[kind] = Pressure(
                avg10=float(values["avg10"]),
                avg60=float(values["avg60"]),
                avg300=float(values["avg300"]),
                total=int(values["total"]),
            )
        except (KeyError, ValueError):
            continue
    return lines
