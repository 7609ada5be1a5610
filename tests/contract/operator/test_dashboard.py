"""Every query of the dashboard, run by a real Prometheus over metrics of a real operator and real agents."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import eventually
from release import ROOT, Operator
from scraping import Prometheus, scraping
from simulated import Cluster
from test_alerts import RULES, promtool
from unit.agent.fakenode import FakeNode
from unit.agent.scrapedagent import Agent, boot, bundle

DASHBOARD: dict[str, Any] = json.loads((ROOT / "charts/noderuntime/files/dashboard.json").read_text())
VERSIONS = "e" * 16, "f" * 16


def queries() -> Iterator[tuple[str, str]]:
    """Yield the title and the query of every target, as Grafana would send it for all NodeRuntimes."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$noderuntime", ".*")
            assert "$" not in query, f"panel {panel['title']} has a variable that the test does not know"
            yield panel["title"], query


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[dict[str, dict[str, str]]]:
    """Addresses of two agents with the PodMonitor's labels; one node went back to its previous version."""
    good, bad = (FakeNode(Path(tempfile.mkdtemp(prefix="nr-scraped-"))) for _ in range(2))
    for node in (good, bad):
        await boot(node)
    versions = [bundle(tmp_path / digest, digest) for digest in VERSIONS]
    async with Agent(bad, versions[0]) as before:
        await before.api.reported("Ready")
    bad.host.exits[VERSIONS[1]] = "no ledger today"
    async with Agent(good, versions[1]) as one, Agent(bad, versions[1]) as two:
        await one.api.reported("Ready")
        await two.api.reported("Degraded")
        yield {
            one.address: {"node": "n1", "noderuntime": "m"},
            two.address: {"node": "n2", "noderuntime": "m"},
        }
    for node in (good, bad):
        await node.host.close()
        shutil.rmtree(node.layout.root)


@pytest.fixture
def watched(cluster: Cluster, operator: Operator) -> Operator:
    """The operator of a NodeRuntime with a ready and a failing node."""
    for name in ("m1", "m2"):
        cluster.node(name, "m")
    cluster.runtime("m", "m", update={"maxUnavailable": 2, "maxFailures": 2})
    eventually(lambda: cluster.instance("m1") and cluster.instance("m2"), "no instances")
    cluster.report("m1", "Ready", m_runc=("Ready", ""))
    cluster.report("m2", "Degraded", m_runc=("Broken", "gone"))
    eventually(lambda: cluster.has("m", "Degraded", "True", "HandlerBroken"), "no Degraded condition")
    return operator


def without_result(server: Prometheus) -> list[str]:
    """Return the panels with a query that has no result."""
    return sorted({title for title, query in queries() if not server.query(query)})


def active_alerts(server: Prometheus) -> set[str]:
    """Return the alerts whose expression is true now, whatever their time."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"] if server.query(rule["expr"])}


async def test_every_query_of_the_dashboard_has_a_result(
    watched: Operator, agents: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    targets = {**agents, f"127.0.0.1:{watched.metrics_port}": {}}

    def run() -> tuple[list[str], set[str]]:
        with scraping(tmp_path, targets) as server:
            with contextlib.suppress(AssertionError):
                eventually(lambda: not without_result(server), "", 20)
            return without_result(server), active_alerts(server)

    empty, alerts = await asyncio.to_thread(run)
    assert empty == []
    assert alerts == {
        "NoderuntimeNodesFailing",
        "NoderuntimeNotAvailable",
        "NoderuntimeUpgradeRolledBack",
    }


@pytest.mark.parametrize("of", ["operator", "agent"])
async def test_metrics_follow_prometheus_conventions(
    watched: Operator, agents: dict[str, dict[str, str]], of: str
) -> None:
    address = next(iter(agents)) if of == "agent" else f"127.0.0.1:{watched.metrics_port}"

    def get() -> bytes:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return bytes(answer.read())

    text = await asyncio.to_thread(get)
    assert await asyncio.to_thread(promtool, "check", "metrics", stdin=text) == ""
