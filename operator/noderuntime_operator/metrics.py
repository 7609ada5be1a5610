"""The operator's metrics for Prometheus; docs/metrics.md describes them.

No label is per node: the operator serves thousands of them. Labels are NodeRuntimes, and values from closed
or bounded sets. The series of a NodeRuntime end with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

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

from noderuntime_operator.api.status import NodeRuntimeStatus, Wave

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
        """Yield one family for each row of the table."""
        for name, description, labels, samples in _FAMILIES:
            family = GaugeMetricFamily(f"noderuntime_{name}", description, labels=("noderuntime", *labels))
            for runtime, status in self.of.items():
                for values, number in samples(status):
                    family.add_metric((runtime, *values), number)
            yield family


_Samples = Iterator[tuple[tuple[str, ...], float]]


def _conditions(status: NodeRuntimeStatus) -> _Samples:
    for condition in status.conditions or ():
        yield (condition.type, condition.reason), condition.status == "True"


def _states(status: NodeRuntimeStatus) -> _Samples:
    yield from (((found.state,), found.nodes) for found in status.states or ())


def _versions(status: NodeRuntimeStatus) -> _Samples:
    yield from (((found.version, found.image), found.nodes) for found in status.versions or ())


def _reasons(status: NodeRuntimeStatus) -> _Samples:
    yield from (((found.reason,), found.nodes) for found in status.reasons or ())


def _phases(status: NodeRuntimeStatus) -> _Samples:
    if status.wave:
        yield from (((phase,), phase == status.wave.phase) for phase in _WAVE_PHASES)


def _revisions(status: NodeRuntimeStatus) -> _Samples:
    failed = status.failed_revision.revision if status.failed_revision else None
    named = {"current": status.current_revision, "update": status.update_revision, "failed": failed}
    yield from (((role, revision), 1) for role, revision in named.items() if revision)


def _count(field: str) -> Callable[[NodeRuntimeStatus], _Samples]:
    """Return the samples of a number in the status, which is 0 until it was computed."""

    def samples(status: NodeRuntimeStatus) -> _Samples:
        yield (), getattr(status, field) or 0

    return samples


def _rollout(field: str) -> Callable[[NodeRuntimeStatus], _Samples]:
    """Return the samples of a number of the rollout."""

    def samples(status: NodeRuntimeStatus) -> _Samples:
        if status.wave:
            yield (), getattr(status.wave, field)

    return samples


_WAVE_PHASES = get_args(Wave.model_fields["phase"].annotation)
_FAMILIES: tuple[tuple[str, str, tuple[str, ...], Callable[[NodeRuntimeStatus], _Samples]], ...] = (
    ("condition", "Conditions with their reason: 1 if True, else 0.", ("type", "reason"), _conditions),
    ("desired_nodes", "Nodes that the selector matches.", (), _count("desired_nodes")),
    ("available_nodes", "Nodes that offer every handler to pods.", (), _count("available_nodes")),
    ("ready_nodes", "Nodes that do what the spec promises.", (), _count("ready_nodes")),
    ("updated_nodes", "Nodes whose agent has applied the newest spec.", (), _count("updated_nodes")),
    ("unreachable_nodes", "Nodes that are not Ready for a minute.", (), _count("unreachable_nodes")),
    ("nodes", "Nodes by state.", ("state",), _states),
    ("version_nodes", "Nodes by the version that runs on them.", ("version", "image"), _versions),
    ("failing_nodes", "Failing nodes by reason.", ("reason",), _reasons),
    ("rollout_nodes", "Nodes that the rollout must reach.", (), _rollout("nodes")),
    ("rollout_updated_nodes", "Nodes that were given the revision.", (), _rollout("updated")),
    ("rollout_ready_nodes", "Nodes that are Ready with the revision.", (), _rollout("ready")),
    ("rollout_failed_nodes", "Nodes that the revision failed on.", (), _rollout("failed")),
    ("rollout_outside_nodes", "Nodes that are off, cordoned or skipped.", (), _rollout("outside")),
    ("rollout_phase", "The phase of the rollout: 1, the others 0.", ("phase",), _phases),
    ("revision_info", "Always 1: the revision of each role.", ("role", "revision"), _revisions),
)
"""Name, description, labels and samples of each family. Lists of a status have at most ten entries."""
