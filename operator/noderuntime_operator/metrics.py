"""The operator's metrics for Prometheus; docs/metrics.md describes them.

No label is per node: the operator serves thousands of them. Labels are NodeRuntimes, and values from closed
or bounded sets. The series of a NodeRuntime end with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from noderuntime_operator.api import NodeRuntimeStatus

_RECONCILE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

Failure = Literal["Refused", "Unavailable", "Internal"]
"""Why a reconciliation failed: the API server refused a request; it could not be reached; a bug."""

disable_created_metrics()  # type: ignore[no-untyped-call] # an additional, unused series for each counter


class Metrics:
    """The metrics of one operator, in a registry of its own."""

    def __init__(self, memory_limit: int = 0) -> None:
        """Start all counters at zero. memory_limit: bytes that the container may use; 0 if unknown."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._statuses = _Statuses()
        self._registry.register(self._statuses)
        self._reconcile_seconds = Histogram(
            "noderuntime_operator_reconcile_duration_seconds",
            "How long reconciliations of one NodeRuntime took, failed ones included.",
            buckets=_RECONCILE_SECONDS,
            registry=self._registry,
        )
        self._failures = Counter(
            "noderuntime_operator_reconcile_errors",
            "Failed reconciliations: Refused or Unavailable (by the API server), Internal.",
            ("reason",),
            registry=self._registry,
        )
        for reason in ("Refused", "Unavailable", "Internal"):
            self._failures.labels(reason)
        self._requests = Counter(
            "noderuntime_operator_api_requests",
            "Requests to the API server, without watches, by HTTP status (0: no response).",
            ("method", "code"),
            registry=self._registry,
        )
        self._relists = Counter(
            "noderuntime_operator_relists",
            "Complete listings that filled a cache: at the start, and after a watch was lost.",
            ("kind",),
            registry=self._registry,
        )
        self._leader = self._gauge("leader", "Whether this operator holds the lease and reconciles.")
        self._gauge("memory_limit_bytes", "The container's memory limit; 0: none.").set(memory_limit)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(f"noderuntime_operator_{name}", description, registry=self._registry)

    @contextmanager
    def reconciling(self) -> Iterator[None]:
        """Measure one reconciliation."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._reconcile_seconds.observe(time.perf_counter() - began)

    def failed(self, reason: Failure) -> None:
        """Count a failed reconciliation."""
        self._failures.labels(reason).inc()

    def requested(self, method: str, code: int) -> None:
        """Count a request to the API server by its HTTP status; 0: there was no response."""
        self._requests.labels(method, str(code)).inc()

    def relisted(self, kind: str) -> None:
        """Count a complete listing that filled the cache of a kind."""
        self._relists.labels(kind).inc()

    def leads(self, *, leader: bool) -> None:
        """Report whether this operator reconciles. A standby reports no NodeRuntime."""
        self._leader.set(leader)
        if not leader:
            self._statuses.of.clear()

    def reported(self, runtime: str, status: NodeRuntimeStatus) -> None:
        """Report a NodeRuntime's newest status from now on."""
        self._statuses.of[runtime] = status

    def ended(self, runtime: str) -> None:
        """Report nothing more about a NodeRuntime that no longer exists."""
        self._statuses.of.pop(runtime, None)

    def watch_caches(self, sizes: Callable[[], Mapping[str, int]]) -> None:
        """Report the number of cached objects by kind, as the function returns it at each scrape."""
        self._registry.register(_CacheSizes(sizes))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


class _CacheSizes(Collector):
    """Counts the cached objects at each scrape."""

    def __init__(self, sizes: Callable[[], Mapping[str, int]]) -> None:
        self._sizes = sizes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the number of objects by kind."""
        family = GaugeMetricFamily(
            "noderuntime_operator_cached_objects", "Objects in the caches.", labels=("kind",)
        )
        for kind, size in self._sizes().items():
            family.add_metric((kind,), size)
        yield family


class _Statuses(Collector):
    """Collects the newest status of each NodeRuntime."""

    def __init__(self) -> None:
        self.of: dict[str, NodeRuntimeStatus] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each NodeRuntime's conditions and node counts."""
        yield self._conditions()
        yield self._counts("desired", "Nodes that the selector matches.", lambda s: s.desired_nodes)
        yield self._counts("ready", "Nodes that do what the spec promises.", lambda s: s.ready_nodes)
        yield self._counts(
            "updated", "Nodes whose agent has applied the newest spec.", lambda s: s.updated_nodes
        )
        yield self._counts(
            "unreachable", "Nodes that have not been Ready for a minute.", lambda s: s.unreachable_nodes
        )

    def _conditions(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "noderuntime_condition",
            "Conditions of NodeRuntimes with their reason: 1 if True, else 0.",
            labels=("noderuntime", "type", "reason"),
        )
        for name, status in self.of.items():
            for condition in status.conditions or ():
                labels = (name, condition.type, condition.reason)
                family.add_metric(labels, condition.status == "True")
        return family

    def _counts(
        self, which: str, description: str, count: Callable[[NodeRuntimeStatus], int | None]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"noderuntime_{which}_nodes", description, labels=("noderuntime",))
        for name, status in self.of.items():
            family.add_metric((name,), count(status) or 0)
        return family
