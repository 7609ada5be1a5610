"""Values of metrics, and what CRI makes of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.stats.metrics.table import METRICS

_WHOLE = {"cpu": "total"}
"""What labels say that another runtime has and we do not: ours are for all CPUs together."""

LabelKeys = Mapping[str, Sequence[str]]
"""By metric: the labels in the order that its reader knows; ours where it is not in there."""


class Value(NamedTuple):
    """A metric at one moment; its name without ``container_``."""

    name: str
    number: int
    labels: Mapping[str, str] = {}


def some(name: str, number: int | None, **labels: str) -> Iterable[Value]:
    """Return the value, if it is known and can be told: CRI's are never negative."""
    return () if number is None or number < 0 else (Value(name, number, labels),)


def descriptors() -> list[api_pb2.MetricDescriptor]:
    """Return what CRI ListMetricDescriptors tells."""
    return [
        api_pb2.MetricDescriptor(name=name, help=kind.help, label_keys=kind.keys)
        for name, kind in METRICS.items()
    ]


def metrics(
    values: Iterable[Value], base: Mapping[str, str], timestamp: int, order: LabelKeys
) -> list[api_pb2.Metric]:
    """Put values into CRI's words; ``base`` are the labels that all of them have."""
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
