"""The metrics of one container, from wherever they are to be had."""

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
"""The root filesystem; which disk it lies on is the snapshotter's business."""


@dataclass(frozen=True, slots=True)
class Look:
    """A container that runs, and where to look at it."""

    container: Container
    rootfs: Path
    cgroup: str | None
    """Path of its own cgroup; None where it shares one (gVisor)."""


def look(version: Literal[1, 2], one: Look, root: Path = ROOT) -> list[Value]:
    """Look at a container's cgroup, processes and filesystem. Blocks."""
    values = list(_filesystem(one.rootfs))
    if one.cgroup is None:
        return values
    values += cgroup.read(version, one.cgroup, root)
    hierarchy = root if version == 2 else root / "pids"
    values += process.open_files(map(int, text(f"{hierarchy}/{one.cgroup}/cgroup.procs").split()))
    if one.container.process is not None:
        values += process.limits(one.container.process.pid)
    return values


def known(container: Container, written: Measured | None) -> Iterator[Value]:
    """Yield what needs no look: times, limits, and what was measured before."""
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


def dealt(stats: api_pb2.ContainerStats) -> Iterator[Value]:
    """Yield a container's part of what its sandbox uses, as the stats calls tell it."""
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
