"""Metric values and their conversion to CRI messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.stats.metrics.table import METRICS

_WHOLE = {"cpu": "total"}
"""Values of labels that another runtime has and we do not: ours are for all CPUs together."""

LabelKeys = Mapping[str, Sequence[str]]
"""By metric: the labels in the order of the reader's descriptors; ours for other metrics."""


class Value(NamedTuple):
    """The value of a metric at one time; the name is without ``container_``."""

    name: str
    number: int
    labels: Mapping[str, str] = {}


def some(name: str, number: int | None, **labels: str) -> Iterable[Value]:
    """Return the value, or nothing if it is unknown or negative, which CRI does not allow."""
    return () if number is None or number < 0 else (Value(name, number, labels),)


def descriptors() -> list[api_pb2.MetricDescriptor]:
    """Return the descriptors of all metrics (CRI ListMetricDescriptors)."""
    return [
        api_pb2.MetricDescriptor(name=name, help=kind.help, label_keys=kind.keys)
        for name, kind in METRICS.items()
    ]


def metrics(
    values: Iterable[Value], base: Mapping[str, str], timestamp: int, order: LabelKeys
) -> list[api_pb2.Metric]:
    """Return the values as CRI messages. ``base`` are their common labels."""
    made = []
    for value in values:
        name = f"container_{value.name}"
        kind = METRICS[name]
        labels = {**_WHOLE, **base, **value.labels}
        made.append(
            api_pb2.Metric(
                name=name,
                timestamp=timestamp,
                metric_type=kind.type,
                label_values=[labels.get(key, "") for key in order.get(name, kind.keys)],
                value=api_pb2.UInt64Value(value=value.number),
            )
        )
    return made
