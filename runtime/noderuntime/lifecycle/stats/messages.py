"""Converts samples to CRI messages. Pure; an unknown number is left unset.

The sums are those of the other runtimes, so that a pod has the same numbers in all of them: the working
set is the usage without inactive page cache.
"""

from __future__ import annotations

from collections.abc import Mapping

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.stats.cgroup_sample import Pressure, Sample

_DEFAULT_INTERFACE = "eth0"


def value(number: int | None) -> api_pb2.UInt64Value | None:
    """Return a number as a message; None if it is unknown."""
    return None if number is None else api_pb2.UInt64Value(value=number)


def cpu(sample: Sample, nano_cores: int | None) -> api_pb2.CpuUsage:
    """Return the CPU usage: the total in nanoseconds of core time, and the current rate."""
    return api_pb2.CpuUsage(
        timestamp=sample.timestamp,
        usage_core_nano_seconds=value(sample.cpu),
        usage_nano_cores=value(nano_cores),
        psi=_psi(sample, "cpu"),
    )


def memory(sample: Sample) -> api_pb2.MemoryUsage:
    """Return the memory usage. Available is the limit minus the working set, 0 without a limit."""
    working_set = None if sample.memory is None else max(sample.memory - sample.inactive_file, 0)
    available = None
    if working_set is not None:
        available = 0 if sample.memory_limit is None else max(sample.memory_limit - working_set, 0)
    return api_pb2.MemoryUsage(
        timestamp=sample.timestamp,
        working_set_bytes=value(working_set),
        available_bytes=value(available),
        usage_bytes=value(sample.memory),
        rss_bytes=value(sample.rss),
        page_faults=value(sample.page_faults),
        major_page_faults=value(sample.major_page_faults),
        psi=_psi(sample, "memory"),
    )


def swap(sample: Sample) -> api_pb2.SwapUsage | None:
    """Return the swap usage; None if swap is not accounted."""
    if sample.swap is None:
        return None
    available = 0 if sample.swap_limit is None else max(sample.swap_limit - sample.swap, 0)
    return api_pb2.SwapUsage(
        timestamp=sample.timestamp,
        swap_usage_bytes=value(sample.swap),
        swap_available_bytes=value(available),
    )


def io(sample: Sample) -> api_pb2.IoUsage | None:
    """Return the I/O pressure; None if the kernel does not provide it."""
    pressure = _psi(sample, "io")
    return None if pressure is None else api_pb2.IoUsage(timestamp=sample.timestamp, psi=pressure)


def network(timestamp: int, table: bytes) -> api_pb2.NetworkUsage:
    """Return the counters of ``/proc/net/dev``: the pod's interface, and the others but ``lo``."""
    usage = api_pb2.NetworkUsage(timestamp=timestamp)
    for line in table.decode("utf-8", "replace").splitlines():
        name, colon, rest = line.strip().partition(":")
        numbers = rest.split()
        if not colon or name == "lo" or len(numbers) < 11 or not all(n.isdecimal() for n in numbers):
            continue
        interface = api_pb2.NetworkInterfaceUsage(
            name=name,
            rx_bytes=value(int(numbers[0])),
            rx_errors=value(int(numbers[2])),
            tx_bytes=value(int(numbers[8])),
            tx_errors=value(int(numbers[10])),
        )
        if name == _DEFAULT_INTERFACE:
            usage.default_interface.CopyFrom(interface)
        else:
            usage.interfaces.append(interface)
    return usage


def _psi(sample: Sample, resource: str) -> api_pb2.PsiStats | None:
    lines: Mapping[str, Pressure] = sample.pressure.get(resource) or {}
    if not lines:
        return None
    data = {
        kind.capitalize(): api_pb2.PsiData(
            Total=line.total, Avg10=line.avg10, Avg60=line.avg60, Avg300=line.avg300
        )
        for kind, line in lines.items()
        if kind in ("some", "full")
    }
    return api_pb2.PsiStats(**data)
