"""The daemon's metrics in Prometheus' format."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from fakes import Node, container_config, pod_config
from prometheus_client.parser import text_string_to_metric_families

from noderuntime.core.errors import Internal, ToolError
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.metrics.base import Metrics
from noderuntime.lifecycle.metrics.prometheus import Prometheus
from noderuntime.lifecycle.metrics.tracing import Traced
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox


def _read(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples of the text, parsed by Prometheus' client."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


@dataclass
class _Pulls:
    succeeded: int = 0
    received: int = 0
    seconds: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)


def test_pulls_are_counted_by_outcome() -> None:
    metrics, pulls = Prometheus(), _Pulls()
    metrics.watch_pulls(pulls)
    assert _value(metrics, "noderuntime_image_pulls_total", outcome="OK") == 0
    pulls.succeeded, pulls.received, pulls.failed["NotFound"] = 2, 77, 1
    assert _value(metrics, "noderuntime_image_pulls_total", outcome="OK") == 2
    assert _value(metrics, "noderuntime_image_pulls_total", outcome="NotFound") == 1
    assert _value(metrics, "noderuntime_image_pull_bytes_total") == 77


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return _read(metrics).get((name, frozenset(labels.items())))


def test_calls_are_counted_by_method_and_code() -> None:
    metrics = Prometheus()
    metrics.called("Version", "OK", 0.002)
    metrics.called("Version", "OK", 2.0)
    metrics.called("Version", "UNAVAILABLE", 0.1)
    assert _value(metrics, "noderuntime_cri_calls_total", method="Version", code="OK") == 2
    assert _value(metrics, "noderuntime_cri_calls_total", method="Version", code="UNAVAILABLE") == 1
    name = "noderuntime_cri_call_duration_seconds"
    assert _value(metrics, f"{name}_count", method="Version") == 3
    assert _value(metrics, f"{name}_bucket", method="Version", le="0.0025") == 1
    assert _value(metrics, f"{name}_bucket", method="Version", le="1.0") == 2


def test_a_failed_phase_is_counted_by_reason_not_measured() -> None:
    metrics = Prometheus()
    with pytest.raises(ToolError), metrics.phase("create", "runc"):
        raise ToolError("runc", "create", 1, "no")
    with metrics.phase("create", "runc"):
        pass
    labels = {"handler": "runc", "phase": "create"}
    assert _value(metrics, "noderuntime_handler_failures_total", **labels, reason="ToolError") == 1
    assert _value(metrics, "noderuntime_pod_phase_duration_seconds_count", **labels) == 1


def test_metrics_include_the_process_and_the_build() -> None:
    names = {name for name, _ in _read(Prometheus())}
    assert {"process_resident_memory_bytes", "noderuntime_build_info"} <= names
    assert not any(name.endswith("_created") for name in names)


async def test_a_pods_phases_and_objects_are_counted(node: Node) -> None:
    parts = node.parts
    parts.metrics.watch(parts.ledger)
    pod = await run_pod_sandbox(parts, pod_config(), "runc")
    container = await create_container(parts, pod, container_config())
    assert _value(parts.metrics, "noderuntime_containers", state="created") == 1
    await start_container(parts, container)
    for phase in ("namespaces", "network", "snapshot", "create", "start"):
        name = "noderuntime_pod_phase_duration_seconds_count"
        assert _value(parts.metrics, name, handler="runc", phase=phase) == 1, phase
    assert _value(parts.metrics, "noderuntime_sandboxes", state="ready") == 1
    assert _value(parts.metrics, "noderuntime_containers", state="running") == 1
    await stop_pod_sandbox(parts, pod)
    assert _value(parts.metrics, "noderuntime_sandboxes", state="ready") == 0
    assert _value(parts.metrics, "noderuntime_sandboxes", state="notready") == 1
    assert _value(parts.metrics, "noderuntime_containers", state="exited") == 1


async def test_failures_are_counted_per_handler(node: Node) -> None:
    node.world.fail = {"attach"}
    with pytest.raises(Internal):
        await run_pod_sandbox(node.parts, pod_config(), "gvisor")
    assert (
        _value(
            node.parts.metrics,
            "noderuntime_handler_failures_total",
            handler="gvisor",
            phase="network",
            reason="Internal",
        )
        == 1
    )


def test_disabled_metrics_accept_calls_and_raise_errors() -> None:
    metrics, counted = Metrics(), {*vars(Prometheus), *vars(Traced)}
    assert {name for name in vars(Metrics) if not name.startswith("_")} == {
        name for name in counted if not name.startswith("_")
    }
    with pytest.raises(ToolError), metrics.phase("create", "runc"):
        raise ToolError("runc", "create", 1, "no")
    assert metrics.text() == b""
