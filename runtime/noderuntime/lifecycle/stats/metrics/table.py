"""Every metric that there is: its name, its meaning, its kind, and the labels besides the usual ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from noderuntime.cri.v1 import api_pb2

BASE = ("pod", "namespace", "container", "id", "image")
"""Labels of all metrics, in the order in which containerd has them."""


class Kind(NamedTuple):
    """What a metric is."""

    help: str
    type: api_pb2.MetricType
    extra: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """All labels."""
        return BASE + self.extra


def _gauges(*extra: str, **helps: str) -> dict[str, Kind]:
    return {f"container_{name}": Kind(text, api_pb2.GAUGE, extra) for name, text in helps.items()}


def _counters(*extra: str, **helps: str) -> dict[str, Kind]:
    return {f"container_{name}": Kind(text, api_pb2.COUNTER, extra) for name, text in helps.items()}


METRICS: Mapping[str, Kind] = {
    **_gauges(
        last_seen="When the container was last looked at, in seconds since the epoch.",
        start_time_seconds="When the container was started, in seconds since the epoch.",
        memory_cache="Page cache, in bytes.",
        memory_rss="Anonymous memory, in bytes.",
        memory_kernel_usage="Memory of the kernel on the container's behalf, in bytes.",
        memory_mapped_file="Files that are mapped into memory, in bytes.",
        memory_swap="Memory that is swapped out, in bytes.",
        memory_usage_bytes="All memory in use, in bytes.",
        memory_max_usage_bytes="The most memory that ever was in use, in bytes.",
        memory_working_set_bytes="Memory in use without inactive page cache, in bytes.",
        memory_total_active_file_bytes="Active page cache, in bytes.",
        memory_total_inactive_file_bytes="Inactive page cache, in bytes.",
        processes="Processes of the container.",
        threads="Threads of the container.",
        threads_max="Threads that the container may have; 0 for any number.",
        file_descriptors="Open files of all its processes.",
        sockets="Open sockets of all its processes.",
        spec_cpu_period="Period of CPU limits, in microseconds.",
        spec_cpu_quota="CPU time per period that the container may use, in microseconds.",
        spec_cpu_shares="Weight of the container when CPU time is short.",
        spec_memory_limit_bytes="Memory that the container may use, in bytes.",
        spec_memory_swap_limit_bytes="Memory with swap that the container may use, in bytes.",
    ),
    **_counters(
        cpu_usage_seconds_total="CPU time, in seconds.",
        cpu_user_seconds_total="CPU time in user space, in seconds.",
        cpu_system_seconds_total="CPU time in the kernel, in seconds.",
        cpu_cfs_periods_total="Periods in which a CPU limit was looked at.",
        cpu_cfs_throttled_periods_total="Periods in which the container had to wait.",
        cpu_cfs_throttled_seconds_total="Time that the container had to wait, in seconds.",
        memory_failcnt="How often the memory limit was hit; cgroup v2 does not tell.",
        oom_events_total="Processes that were killed for want of memory.",
        pressure_cpu_waiting_seconds_total="Time in which some waited for a CPU, in seconds.",
        pressure_cpu_stalled_seconds_total="Time in which all waited for a CPU, in seconds.",
        pressure_memory_waiting_seconds_total="Time in which some waited for memory, in seconds.",
        pressure_memory_stalled_seconds_total="Time in which all waited for memory, in seconds.",
        pressure_io_waiting_seconds_total="Time in which some waited for I/O, in seconds.",
        pressure_io_stalled_seconds_total="Time in which all waited for I/O, in seconds.",
    ),
    **_counters(
        "failure_type",
        "scope",
        memory_failures_total="Page faults, and those that had to read from a disk.",
    ),
    **_gauges(
        "ulimit", ulimits_soft="Soft limits of the container's first process; those without are left out."
    ),
    **_gauges(
        "device",
        fs_usage_bytes="What the container has written, in bytes.",
        fs_limit_bytes="Size of the filesystem that it writes to, in bytes.",
        fs_inodes_total="Inodes of the filesystem that it writes to.",
        fs_inodes_free="Free inodes of the filesystem that it writes to.",
    ),
    **_counters(
        "device",
        fs_reads_total="Reads from a disk.",
        fs_reads_bytes_total="Bytes that were read from a disk.",
        fs_writes_total="Writes to a disk.",
        fs_writes_bytes_total="Bytes that were written to a disk.",
    ),
    **_counters(
        "device",
        "major",
        "minor",
        "operation",
        blkio_device_usage_total="Bytes that went from or to a disk.",
    ),
    **_counters(
        "interface",
        network_receive_bytes_total="Bytes received.",
        network_receive_packets_total="Packets received.",
        network_receive_packets_dropped_total="Packets dropped that were being received.",
        network_receive_errors_total="Errors while receiving.",
        network_transmit_bytes_total="Bytes sent.",
        network_transmit_packets_total="Packets sent.",
        network_transmit_packets_dropped_total="Packets dropped that were being sent.",
        network_transmit_errors_total="Errors while sending.",
    ),
}
