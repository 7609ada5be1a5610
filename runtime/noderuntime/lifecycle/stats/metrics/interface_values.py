"""Counters of a pod's interfaces, from ``/proc/net/dev`` of its network namespace. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from noderuntime.lifecycle.stats.metrics.values import Value

_COLUMNS = {
    "network_receive_bytes_total": 0,
    "network_receive_packets_total": 1,
    "network_receive_errors_total": 2,
    "network_receive_packets_dropped_total": 3,
    "network_transmit_bytes_total": 8,
    "network_transmit_packets_total": 9,
    "network_transmit_errors_total": 10,
    "network_transmit_packets_dropped_total": 11,
}


def interfaces(content: bytes) -> Iterator[Value]:
    """Yield the counters of every interface but ``lo``."""
    for line in content.decode("utf-8", "replace").splitlines():
        name, colon, rest = line.strip().partition(":")
        numbers = rest.split()
        if not colon or name == "lo" or len(numbers) < 12 or not all(one.isdecimal() for one in numbers):
            continue
        for metric, column in _COLUMNS.items():
            yield Value(metric, int(numbers[column]), {"interface": name})
