"""What only the processes of a container can tell: open files, and limits. Blocks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from noderuntime.lifecycle.stats.cgroup_sample import text
from noderuntime.lifecycle.stats.metrics.values import Value, some

_MOST = 4096
"""Descriptors that are looked at for sockets; a container with more of them tells only how many it has."""

_LIMITS = {
    "Max open files": "max_open_files",
    "Max processes": "max_processes",
    "Max locked memory": "max_locked_memory",
}


def open_files(pids: Iterable[int]) -> Iterator[Value]:
    """Count open files and sockets of processes; those that have gone have none."""
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
    """Read the soft limits of a process, proc_pid_limits(5)."""
    for line in text(f"/proc/{pid}/limits").splitlines():
        for words, name in _LIMITS.items():
            soft = line.removeprefix(words).split()[:1] if line.startswith(words) else []
            if soft and soft[0].isdecimal():
                yield from some("ulimits_soft", int(soft[0]), ulimit=name)


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except OSError:
        return False
