"""Counters of a cgroup, v1 or v2, as metric values. Each call blocks for some twenty file reads."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from noderuntime.lifecycle.stats.cgroup_sample import ROOT, number, pressure, table, text
from noderuntime.lifecycle.stats.metrics.values import Value, some

_SECOND = 1_000_000_000
_BLOCK_DEVICES = Path("/sys/dev/block")


def read(version: Literal[1, 2], path: str, root: Path = ROOT) -> list[Value]:
    """Return the values of a cgroup by its path in the hierarchies; empty if it does not exist."""
    return list(_v2(f"{root}/{path}") if version == 2 else _v1(root, path))


def _v1(root: Path, path: str) -> Iterator[Value]:
    cpu, cpuacct, memory, pids, blkio = (
        f"{root}/{name}/{path}" for name in ("cpu", "cpuacct", "memory", "pids", "blkio")
    )
    for name, file in (("usage", "usage"), ("user", "usage_user"), ("system", "usage_sys")):
        used = number(f"{cpuacct}/cpuacct.{file}")
        yield from some(f"cpu_{name}_seconds_total", None if used is None else used // _SECOND)
    yield from _throttling(table(f"{cpu}/cpu.stat"), "throttled_time", 1)
    stat = {key.removeprefix("total_"): one for key, one in table(f"{memory}/memory.stat").items()}
    usage = number(f"{memory}/memory.usage_in_bytes")
    yield from _memory(stat, usage, rss="rss", cache="cache", mapped="mapped_file")
    yield from some("memory_max_usage_bytes", number(f"{memory}/memory.max_usage_in_bytes"))
    yield from some("memory_kernel_usage", number(f"{memory}/memory.kmem.usage_in_bytes"))
    yield from some("memory_failcnt", number(f"{memory}/memory.failcnt"))
    yield from some("memory_swap", stat.get("swap"))
    yield from some("oom_events_total", table(f"{memory}/memory.oom_control").get("oom_kill"))
    yield from _tasks(pids)
    for file, name in (("io_service_bytes", "bytes"), ("io_serviced", "")):
        yield from _blkio(text(f"{blkio}/blkio.throttle.{file}_recursive"), name)


def _v2(group: str) -> Iterator[Value]:
    cpu = table(f"{group}/cpu.stat")
    for name in ("usage", "user", "system"):
        used = cpu.get(f"{name}_usec")
        yield from some(f"cpu_{name}_seconds_total", None if used is None else used * 1000 // _SECOND)
    yield from _throttling(cpu, "throttled_usec", 1000)
    stat = table(f"{group}/memory.stat")
    usage = number(f"{group}/memory.current")
    yield from _memory(stat, usage, rss="anon", cache="file", mapped="file_mapped")
    yield from some("memory_max_usage_bytes", number(f"{group}/memory.peak"))
    yield from some("memory_kernel_usage", stat.get("kernel", stat.get("kernel_stack")))
    yield from some("memory_failcnt", 0 if stat else None)
    yield from some("memory_swap", number(f"{group}/memory.swap.current"))
    yield from some("oom_events_total", table(f"{group}/memory.events").get("oom_kill"))
    yield from _tasks(group)
    yield from _io(text(f"{group}/io.stat"))
    for resource in ("cpu", "memory", "io"):
        for line, word in (("some", "waiting"), ("full", "stalled")):
            stalled = pressure(f"{group}/{resource}.pressure").get(line)
            seconds = None if stalled is None else stalled.total * 1000 // _SECOND
            yield from some(f"pressure_{resource}_{word}_seconds_total", seconds)


def _throttling(stat: dict[str, int], time: str, unit: int) -> Iterator[Value]:
    yield from some("cpu_cfs_periods_total", stat.get("nr_periods"))
    yield from some("cpu_cfs_throttled_periods_total", stat.get("nr_throttled"))
    throttled = stat.get(time)
    yield from some(
        "cpu_cfs_throttled_seconds_total", None if throttled is None else throttled * unit // _SECOND
    )


def _memory(stat: dict[str, int], usage: int | None, *, rss: str, cache: str, mapped: str) -> Iterator[Value]:
    yield from some("memory_usage_bytes", usage)
    if usage is not None:
        yield from some("memory_working_set_bytes", max(usage - stat.get("inactive_file", 0), 0))
    yield from some("memory_rss", stat.get(rss))
    yield from some("memory_cache", stat.get(cache))
    yield from some("memory_mapped_file", stat.get(mapped))
    yield from some("memory_total_active_file_bytes", stat.get("active_file"))
    yield from some("memory_total_inactive_file_bytes", stat.get("inactive_file"))
    for kind in ("pgfault", "pgmajfault"):
        yield from some("memory_failures_total", stat.get(kind), failure_type=kind, scope="container")


def _tasks(group: str) -> Iterator[Value]:
    processes = text(f"{group}/cgroup.procs").split()
    yield from some("processes", len(processes) or None)
    yield from some("threads", number(f"{group}/pids.current"))
    yield from some(
        "threads_max", 0 if text(f"{group}/pids.max").strip() == "max" else number(f"{group}/pids.max")
    )


def _blkio(content: str, unit: str) -> Iterator[Value]:
    """Yield the values of v1's lines ``MAJOR:MINOR Operation NUMBER``. Lines with two fields are sums."""
    for fields in map(str.split, content.splitlines()):
        if len(fields) == 3 and fields[2].isdecimal():
            yield from _operation(fields[0], fields[1].lower(), int(fields[2]), unit)


def _io(content: str) -> Iterator[Value]:
    """Yield the values of v2's lines ``MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …``."""
    fields = {
        "rbytes": ("read", "bytes"),
        "wbytes": ("write", "bytes"),
        "rios": ("read", ""),
        "wios": ("write", ""),
    }
    for line in content.splitlines():
        numbers, *rest = line.split()
        for word in rest:
            key, _, count = word.partition("=")
            if key in fields and count.isdecimal():
                operation, unit = fields[key]
                yield from _operation(numbers, operation, int(count), unit)


def _operation(numbers: str, operation: str, count: int, unit: str) -> Iterator[Value]:
    device = _device(numbers)
    if operation in ("read", "write"):
        yield Value(f"fs_{operation}s_{unit}_total".replace("__", "_"), count, {"device": device})
    if unit == "bytes":
        major, _, minor = numbers.partition(":")
        labels = {"device": device, "major": major, "minor": minor, "operation": operation.capitalize()}
        yield Value("blkio_device_usage_total", count, labels)


@functools.lru_cache(maxsize=256)
def _device(numbers: str) -> str:
    """Return the device's path, or its numbers if it has none."""
    for line in text(f"{_BLOCK_DEVICES}/{numbers}/uevent").splitlines():
        key, _, name = line.partition("=")
        if key == "DEVNAME":
            return f"/dev/{name}"
    return numbers
