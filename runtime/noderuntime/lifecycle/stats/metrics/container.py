"""The metric values of one container, from all sources."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.stats.cgroup_sample import ROOT, text
from noderuntime.lifecycle.stats.layers import Measured
from noderuntime.lifecycle.stats.metrics import cgroup_values as cgroup
from noderuntime.lifecycle.stats.metrics import process_values as process
from noderuntime.lifecycle.stats.metrics.values import Value, some

_SECOND = 1_000_000_000
_DEVICE = {"device": "/"}
"""The root filesystem. Its disk is known only to the snapshotter."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running container, and the files to read its values from."""

    container: Container
    rootfs: Path
    cgroup: str | None
    """Path of its own cgroup; None if it has none (gVisor)."""


def observe(version: Literal[1, 2], target: Target, root: Path = ROOT) -> list[Value]:
    """Return the values of a container's cgroup, processes and filesystem. Blocks."""
    values = list(_filesystem(target.rootfs))
    if target.cgroup is None:
        return values
    values += cgroup.read(version, target.cgroup, root)
    hierarchy = root if version == 2 else root / "pids"
    values += process.open_files(map(int, text(f"{hierarchy}/{target.cgroup}/cgroup.procs").split()))
    if target.container.process is not None:
        values += process.limits(target.container.process.pid)
    return values


def recorded(container: Container, written: Measured | None) -> Iterator[Value]:
    """Yield the values in memory: times, limits, and the last measurement of the writable layer."""
    yield from some("last_seen", time.time_ns() // _SECOND)
    yield from some("start_time_seconds", container.started_at // _SECOND)
    limits = container.resources
    for name, limit in (
        ("cpu_period", limits.cpu_period),
        ("cpu_quota", limits.cpu_quota),
        ("cpu_shares", limits.cpu_shares),
        ("memory_limit_bytes", limits.memory_limit_in_bytes),
        ("memory_swap_limit_bytes", limits.memory_swap_limit_in_bytes),
    ):
        yield from some(f"spec_{name}", limit or None)
    if written is not None:
        yield Value("fs_usage_bytes", written.bytes, _DEVICE)


def share_values(stats: api_pb2.ContainerStats) -> Iterator[Value]:
    """Yield a container's share of its sandbox's usage, as the stats calls report it."""
    if stats.cpu.HasField("usage_core_nano_seconds"):
        yield Value("cpu_usage_seconds_total", stats.cpu.usage_core_nano_seconds.value // _SECOND)
    for name, field in (
        ("memory_usage_bytes", "usage_bytes"),
        ("memory_working_set_bytes", "working_set_bytes"),
        ("memory_rss", "rss_bytes"),
    ):
        if stats.memory.HasField(field):
            yield Value(name, getattr(stats.memory, field).value)


def _filesystem(rootfs: Path) -> Iterator[Value]:
    try:
        found = os.statvfs(rootfs)
    except OSError:
        return
    yield Value("fs_limit_bytes", found.f_blocks * found.f_frsize, _DEVICE)
    yield Value("fs_inodes_total", found.f_files, _DEVICE)
    yield Value("fs_inodes_free", found.f_favail, _DEVICE)
