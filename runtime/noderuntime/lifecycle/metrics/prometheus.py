"""Counting for Prometheus. Its library takes 2 MiB, so that only who has set an address imports this."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

import noderuntime
from noderuntime.core.errors import NoderuntimeError
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.metrics.base import Metrics, Pulls

_CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PHASE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SANDBOX_STATES = ("making", "ready", "notready")
_CONTAINER_STATES = ("making", "created", "running", "exited")

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, which nobody reads


class Prometheus(Metrics):
    """Metrics that are counted; see docs/operations.md for what they mean."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._calls = Counter(
            "noderuntime_cri_calls", "CRI calls that ended.", ("method", "code"), registry=self._registry
        )
        self._call_seconds = Histogram(
            "noderuntime_cri_call_duration_seconds",
            "How long CRI calls took, streams from the first request to their end.",
            ("method",),
            buckets=_CALL_SECONDS,
            registry=self._registry,
        )
        self._phase_seconds = Histogram(
            "noderuntime_pod_phase_duration_seconds",
            "How long the phases of making and ending pods took, where they succeeded.",
            ("handler", "phase"),
            buckets=_PHASE_SECONDS,
            registry=self._registry,
        )
        self._failures = Counter(
            "noderuntime_handler_failures",
            "What failed in pods of a handler, by phase and kind of error.",
            ("handler", "phase", "reason"),
            registry=self._registry,
        )
        self._upstream = Counter(
            "noderuntime_upstream_errors",
            "Calls that the node's own runtime answered with an error, or (UNAVAILABLE) not at all.",
            ("code",),
            registry=self._registry,
        )
        self._reloads = Counter(
            "noderuntime_config_reloads",
            "Reloads of the configuration: applied or refused.",
            ("outcome",),
            registry=self._registry,
        )
        build = Gauge("noderuntime_build_info", "Always 1.", ("version",), registry=self._registry)
        build.labels(noderuntime.__version__).set(1)

    def called(self, method: str, code: str, seconds: float) -> None:
        """Count a CRI call: a method of the schema or OTHER_METHOD, and the name of a gRPC code."""
        self._calls.labels(method, code).inc()
        self._call_seconds.labels(method).observe(seconds)

    @contextmanager
    def phase(self, phase: str, handler: str) -> Iterator[None]:
        """Measure a step in the life of a pod of a configured handler; count it if it fails."""
        began = time.perf_counter()
        try:
            yield
        except NoderuntimeError as error:
            self._failures.labels(handler, phase, type(error).__name__).inc()
            raise
        self._phase_seconds.labels(handler, phase).observe(time.perf_counter() - began)

    def upstream_failed(self, code: str) -> None:
        """Count an error of the upstream, by the name of its gRPC code."""
        self._upstream.labels(code).inc()

    def reloaded(self, *, applied: bool) -> None:
        """Count a reload of the configuration."""
        self._reloads.labels("applied" if applied else "refused").inc()

    def watch(self, ledger: Ledger) -> None:
        """Tell from now on how many sandboxes and containers the ledger has."""
        self._registry.register(_Census(ledger))

    def watch_pulls(self, pulls: Pulls) -> None:
        """Tell from now on what pulls into a store of our own came to."""
        self._registry.register(_PullTotals(pulls))

    def text(self) -> bytes:
        """Write everything in Prometheus' text format 0.0.4; some 15 ms of work, in any thread."""
        return generate_latest(self._registry)


class _PullTotals(Collector):
    """Reads the counters of the image store when somebody asks."""

    def __init__(self, pulls: Pulls) -> None:
        self._pulls = pulls

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Tell how many pulls there were, how they ended, and what they took."""
        ended = CounterMetricFamily(
            "noderuntime_image_pulls", "Pulls that ended: OK, or the kind of the error.", labels=("outcome",)
        )
        for outcome, number in {"OK": self._pulls.succeeded, **self._pulls.failed}.items():
            ended.add_metric((outcome,), number)
        yield ended
        yield CounterMetricFamily(
            "noderuntime_image_pull_bytes", "Bytes of layers that came.", value=self._pulls.received
        )
        yield CounterMetricFamily(
            "noderuntime_image_pull_seconds", "Time in pulls, each for itself.", value=self._pulls.seconds
        )


class _Census(Collector):
    """Counts records when somebody asks."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Count sandboxes and containers by state; a state that none is in is 0."""
        sandboxes = Tally(_sandbox_state(one) for one in self._ledger.sandboxes)
        yield _gauge("sandboxes", "Sandboxes of our handlers.", _SANDBOX_STATES, sandboxes)
        containers = Tally(_container_state(one) for one in self._ledger.containers)
        yield _gauge("containers", "Containers of our handlers.", _CONTAINER_STATES, containers)


def _gauge(what: str, words: str, states: tuple[str, ...], numbers: Tally[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"noderuntime_{what}", words, labels=("state",))
    for state in states:
        family.add_metric((state,), numbers[state])
    return family


def _sandbox_state(sandbox: Sandbox) -> str:
    if not sandbox.visible:
        return "making"
    return "ready" if sandbox.ready else "notready"


def _container_state(container: Container) -> str:
    if not container.visible:
        return "making"
    if container.running:
        return "running"
    return "created" if container.live else "exited"
