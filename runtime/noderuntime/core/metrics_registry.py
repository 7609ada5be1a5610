"""Registries of Prometheus metrics. Its library takes 2 MiB: import this module only to serve metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics

import noderuntime

disable_created_metrics()  # type: ignore[no-untyped-call] # an additional, unused series for each counter


def new_registry(build_info: str) -> CollectorRegistry:
    """Return a registry with the metrics of this process, and a metric of this name with the version."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge(build_info, "Always 1.", ("version",), registry=registry)
    build.labels(noderuntime.__version__).set(1)
    return registry
