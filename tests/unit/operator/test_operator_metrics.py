"""The operator's metrics, as a scrape reads them."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from noderuntime_operator.api.base import Condition
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.exposition import serve_metrics
from noderuntime_operator.metrics import Metrics

NOW = "2026-01-01T00:00:00Z"


def scrape(metrics: Metrics) -> dict[str, float]:
    """Return the values by name and labels, as Prometheus writes them."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        name + "".join(f" {key}={value}" for key, value in sorted(labels.items())): value
        for family in families
        for name, labels, value, *_ in family.samples
    }


def condition(kind: str, status: str, reason: str) -> Condition:
    return Condition.model_validate(
        {"type": kind, "status": status, "lastTransitionTime": NOW, "reason": reason, "message": ""}
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(memory_limit=1 << 28)


def test_status_becomes_conditions_and_counts(metrics: Metrics) -> None:
    conditions = [condition("Ready", "True", "AllNodesReady"), condition("Degraded", "False", "AsExpected")]
    metrics.reported("a", NodeRuntimeStatus(desired_nodes=3, ready_nodes=2, conditions=conditions))
    found = scrape(metrics)
    assert found["noderuntime_condition noderuntime=a reason=AllNodesReady type=Ready"] == 1
    assert found["noderuntime_condition noderuntime=a reason=AsExpected type=Degraded"] == 0
    assert found["noderuntime_desired_nodes noderuntime=a"] == 3
    assert found["noderuntime_ready_nodes noderuntime=a"] == 2


def test_rollout_versions_and_reasons_are_counted(metrics: Metrics) -> None:
    status = NodeRuntimeStatus.model_validate(
        {
            "states": [{"state": "Ready", "nodes": 90}, {"state": "Failed", "nodes": 2}],
            "versions": [{"version": "0.1.0", "image": "r/n:1", "nodes": 92}],
            "reasons": [{"reason": "UpgradeRolledBack", "nodes": 2}],
            "wave": {"phase": "Stopped", "nodes": 100, "updated": 5, "ready": 3, "failed": 2, "outside": 1},
            "currentRevision": "one",
            "failedRevision": {"revision": "two", "message": ""},
        }
    )
    metrics.reported("a", status)
    found = scrape(metrics)
    expected = {
        "noderuntime_nodes noderuntime=a state=Ready": 90,
        "noderuntime_nodes noderuntime=a state=Failed": 2,
        "noderuntime_version_nodes image=r/n:1 noderuntime=a version=0.1.0": 92,
        "noderuntime_failing_nodes noderuntime=a reason=UpgradeRolledBack": 2,
        "noderuntime_rollout_nodes noderuntime=a": 100,
        "noderuntime_rollout_updated_nodes noderuntime=a": 5,
        "noderuntime_rollout_ready_nodes noderuntime=a": 3,
        "noderuntime_rollout_failed_nodes noderuntime=a": 2,
        "noderuntime_rollout_outside_nodes noderuntime=a": 1,
        "noderuntime_rollout_phase noderuntime=a phase=Stopped": 1,
        "noderuntime_rollout_phase noderuntime=a phase=Rolling": 0,
        "noderuntime_revision_info noderuntime=a revision=one role=current": 1,
        "noderuntime_revision_info noderuntime=a revision=two role=failed": 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert not [name for name in found if "role=update" in name]


def test_changed_reason_replaces_the_old_series(metrics: Metrics) -> None:
    metrics.reported("a", NodeRuntimeStatus(conditions=[condition("Ready", "False", "Installing")]))
    metrics.reported("a", NodeRuntimeStatus(conditions=[condition("Ready", "True", "AllNodesReady")]))
    found = [series for series in scrape(metrics) if series.startswith("noderuntime_condition")]
    assert found == ["noderuntime_condition noderuntime=a reason=AllNodesReady type=Ready"]


def test_series_end_with_their_noderuntime(metrics: Metrics) -> None:
    metrics.reported("a", NodeRuntimeStatus(desired_nodes=3))
    metrics.ended("a")
    assert "noderuntime_desired_nodes noderuntime=a" not in scrape(metrics)


def test_standby_reports_no_noderuntime(metrics: Metrics) -> None:
    metrics.leads(leader=True)
    metrics.reported("a", NodeRuntimeStatus(desired_nodes=3))
    assert scrape(metrics)["noderuntime_operator_leader"] == 1
    metrics.leads(leader=False)
    found = scrape(metrics)
    assert found["noderuntime_operator_leader"] == 0
    assert "noderuntime_desired_nodes noderuntime=a" not in found


def test_failed_reconciliation_is_measured_and_counted(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="broken"), metrics.reconciling():
        raise ValueError("broken")
    metrics.failed("Internal")
    found = scrape(metrics)
    assert found["noderuntime_operator_reconcile_duration_seconds_count"] == 1
    assert found["noderuntime_operator_reconcile_errors_total reason=Internal"] == 1
    assert found["noderuntime_operator_reconcile_errors_total reason=Refused"] == 0


def test_requests_relists_and_caches_are_counted(metrics: Metrics) -> None:
    metrics.requested("PATCH", 409)
    metrics.requested("GET", 0)
    metrics.relisted("nodes")
    sizes = {"nodes": 5000}
    metrics.watch_caches(lambda: sizes)
    found = scrape(metrics)
    assert found["noderuntime_operator_api_requests_total code=409 method=PATCH"] == 1
    assert found["noderuntime_operator_api_requests_total code=0 method=GET"] == 1
    assert found["noderuntime_operator_relists_total kind=nodes"] == 1
    assert found["noderuntime_operator_cached_objects kind=nodes"] == 5000
    assert found["noderuntime_operator_memory_limit_bytes"] == 1 << 28
    assert found["process_resident_memory_bytes"] > 0


IPV6 = Path("/proc/net/if_inet6")
needs_ipv6 = pytest.mark.skipif(not IPV6.exists() or not IPV6.read_text(), reason="no IPv6 on this machine")


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::1]", marks=needs_ipv6)])
async def test_endpoint_serves_metrics_on_both_families(metrics: Metrics, host: str) -> None:
    runner = await serve_metrics(0, metrics.text)
    port = next(address[1] for address in runner.addresses if (":" in address[0]) == (":" in host))

    def get() -> tuple[bytes, str]:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=5) as answer:
            return answer.read(), answer.headers["Content-Type"]

    try:
        body, kind = await asyncio.to_thread(get)
    finally:
        await runner.cleanup()
    assert b"noderuntime_operator_leader 0.0" in body
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
