"""The table of all metrics: name, help, type, and the labels beside the common ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from noderuntime.cri.v1 import api_pb2

BASE = ("pod", "namespace", "container", "id", "image")
"""Labels of all metrics, in containerd's order."""


class Kind(NamedTuple):
    """The description of a metric."""

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
        last_seen="Time of the last observation, in seconds since the epoch.",
        start_time_seconds="Start time of the container, in seconds since the epoch.",
        memory_cache="Page cache, in bytes.",
        memory_rss="Anonymous memory, in bytes.",
        memory_kernel_usage="Kernel memory used for the container, in bytes.",
        memory_mapped_file="Memory-mapped files, in bytes.",
        memory_swap="Swapped-out memory, in bytes.",
        memory_usage_bytes="All memory in use, in bytes.",
        memory_max_usage_bytes="Maximum memory usage so far, in bytes.",
        memory_working_set_bytes="Memory in use without inactive page cache, in bytes.",
        memory_total_active_file_bytes="Active page cache, in bytes.",
        memory_total_inactive_file_bytes="Inactive page cache, in bytes.",
        processes="Processes of the container.",
        threads="Threads of the container.",
        threads_max="Limit on threads of the container; 0 for no limit.",
        file_descriptors="Open files of all processes.",
        sockets="Open sockets of all processes.",
        spec_cpu_period="Period of CPU limits, in microseconds.",
        spec_cpu_quota="CPU time limit per period, in microseconds.",
        spec_cpu_shares="CPU weight of the container.",
        spec_memory_limit_bytes="Memory limit, in bytes.",
        spec_memory_swap_limit_bytes="Limit on memory and swap together, in bytes.",
    ),
    **_counters(
        cpu_usage_seconds_total="CPU time, in seconds.",
        cpu_user_seconds_total="CPU time in user space, in seconds.",
        cpu_system_seconds_total="CPU time in the kernel, in seconds.",
        cpu_cfs_periods_total="Periods with an enforced CPU limit.",
        cpu_cfs_throttled_periods_total="Periods in which the container was throttled.",
        cpu_cfs_throttled_seconds_total="Time in which the container was throttled, in seconds.",
        memory_failcnt="Number of hits of the memory limit; 0 on cgroup v2, which does not count them.",
        oom_events_total="Processes that were OOM-killed.",
        pressure_cpu_waiting_seconds_total="Time in which some tasks waited for CPU, in seconds.",
        pressure_cpu_stalled_seconds_total="Time in which all tasks waited for CPU, in seconds.",
        pressure_memory_waiting_seconds_total="Time in which some tasks waited for memory, in seconds.",
        pressure_memory_stalled_seconds_total="Time in which all tasks waited for memory, in seconds.",
        pressure_io_waiting_seconds_total="Time in which some tasks waited for I/O, in seconds.",
        pressure_io_stalled_seconds_total="Time in which all tasks waited for I/O, in seconds.",
    ),
    **_counters(
        "failure_type",
        "scope",
        memory_failures_total="Page faults (pgfault), and those that read from disk (pgmajfault).",
    ),
    **_gauges(
        "ulimit", ulimits_soft="Soft limits of the container's first process; unlimited ones are omitted."
    ),
    **_gauges(
        "device",
        fs_usage_bytes="Disk usage of the writable layer, in bytes.",
        fs_limit_bytes="Size of the writable layer's filesystem, in bytes.",
        fs_inodes_total="Inodes of the writable layer's filesystem.",
        fs_inodes_free="Free inodes of the writable layer's filesystem.",
    ),
    **_counters(
        "device",
        fs_reads_total="Reads from a disk.",
        fs_reads_bytes_total="Bytes read from a disk.",
        fs_writes_total="Writes to a disk.",
        fs_writes_bytes_total="Bytes written to a disk.",
    ),
    **_counters(
        "device",
        "major",
        "minor",
        "operation",
        blkio_device_usage_total="Bytes transferred from or to a disk.",
    ),
    **_counters(
        "interface",
        network_receive_bytes_total="Bytes received.",
        network_receive_packets_total="Packets received.",
        network_receive_packets_dropped_total="Received packets that were dropped.",
        network_receive_errors_total="Errors while receiving.",
        network_transmit_bytes_total="Bytes sent.",
        network_transmit_packets_total="Packets sent.",
        network_transmit_packets_dropped_total="Packets to send that were dropped.",
        network_transmit_errors_total="Errors while sending.",
    ),
}
