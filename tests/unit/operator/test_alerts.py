"""Every alert of the chart has a section in docs/alerts.md and a test of promtool; metrics are documented."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from noderuntime.agent.layout import Layout
from noderuntime.agent.metrics import AgentMetrics
from noderuntime.lifecycle.metrics.prometheus import Prometheus
from noderuntime_operator.metrics import Metrics

ROOT = Path(__file__).parents[3]
RULES = yaml.safe_load((ROOT / "charts/noderuntime/files/alerts.yaml").read_text())
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
DOCUMENT = (ROOT / "docs/alerts.md").read_text()


def test_every_alert_has_a_section_of_its_name() -> None:
    sections = re.findall(r"^## (\w+)$", DOCUMENT, re.MULTILINE)
    assert sections == [alert["alert"] for alert in ALERTS]


def test_every_alert_fires_and_is_silent_in_a_test() -> None:
    tests = yaml.safe_load((ROOT / "tests/contract/operator/alerts.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    names = {alert["alert"] for alert in ALERTS}
    assert fired == names
    assert names - silent == {"NoderuntimeRolledBack"}  # it has no time in which it could be silent


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alert_has_a_severity_and_texts(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description"}


def described(page: str = "metrics.md") -> set[str]:
    """Return the metrics of noderuntime that a page of docs/ describes."""
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(noderuntime_\w+)`", row)}


def served(*texts: bytes) -> set[str]:
    """Return the metrics of noderuntime in texts of Prometheus' format."""
    families = [one for text in texts for one in text_string_to_metric_families(text.decode())]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    return {name for name in names if name.startswith("noderuntime_")}


def test_metrics_of_operator_and_agent_are_those_described(tmp_path: Path) -> None:
    operator, agent = Metrics(), AgentMetrics()
    operator.watch_caches(dict)
    agent.watch(SimpleNamespace(state=None, reported_at=0.0), Layout(tmp_path))
    assert described() == served(operator.text(), agent.text())


def test_metrics_of_the_daemon_are_those_described() -> None:
    daemon = Prometheus()
    daemon.watch(SimpleNamespace(sandboxes=(), containers=()))
    daemon.watch_pulls(SimpleNamespace(succeeded=0, failed={}, received=0, seconds=0.0))
    assert described("operations.md") == served(daemon.text())


def test_alerts_use_documented_metrics_only() -> None:
    used = {name for alert in ALERTS for name in re.findall(r"noderuntime_\w+", alert["expr"])}
    assert {re.sub(r"_bucket$", "", name) for name in used} - described() == set()


def test_alerts_name_reasons_that_the_operator_or_an_agent_reports() -> None:
    sources = [*(ROOT / "operator").rglob("*.py"), *(ROOT / "runtime/noderuntime/agent").rglob("*.py")]
    code = "".join(path.read_text() for path in sources)
    matchers = [
        found
        for alert in ALERTS
        for found in re.findall(r'(?:reason|phase|type)!?=~?"([^"]+)"', alert["expr"])
    ]
    named = {name for matcher in matchers for name in matcher.split("|")}
    assert {name for name in named if f'"{name}"' not in code} == set()
