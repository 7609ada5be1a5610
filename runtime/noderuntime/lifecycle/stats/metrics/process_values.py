"""Values of a container's processes: open files and limits. Blocks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from noderuntime.lifecycle.stats.cgroup_sample import text
from noderuntime.lifecycle.stats.metrics.values import Value, some

_MOST = 4096
"""Limit on descriptors that are checked for sockets; above it only the number of files is reported."""

_LIMITS = {
    "Max open files": "max_open_files",
    "Max processes": "max_processes",
    "Max locked memory": "max_locked_memory",
}


def open_files(pids: Iterable[int]) -> Iterator[Value]:
    """Yield the numbers of open files and sockets of processes. Ended processes have none."""
    files = sockets = 0
    for pid in pids:
        directory = f"/proc/{pid}/fd"
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        files += len(names)
        if files <= _MOST:
            sockets += sum(_is_socket(f"{directory}/{name}") for name in names)
    yield from some("file_descriptors", files)
    yield from some("sockets", sockets if files <= _MOST else None)


def limits(pid: int) -> Iterator[Value]:
    """Yield the soft limits of a process, proc_pid_limits(5)."""
    for line in text(f"/proc/{pid}/limits").splitlines():
        for prefix, name in _LIMITS.items():
            soft = line.removeprefix(prefix).split()[:1] if line.startswith(prefix) else []
            if soft and soft[0].isdecimal():
                yield from some("ulimits_soft", int(soft[0]), ulimit=name)


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except OSError:
        return False
