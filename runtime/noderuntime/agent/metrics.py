"""The agent's metrics for Prometheus; docs/metrics.md describes them.

The state of the node and of its releases is read at each scrape, from the loop and from the switch's files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from noderuntime.agent import probe
from noderuntime.agent.layout import Layout
from noderuntime.agent.loop import Loop
from noderuntime.agent.probe import Finding
from noderuntime.agent.report import Phase
from noderuntime.agent.switch import release
from noderuntime.agent.switch.journal import load_result
from noderuntime.core.metrics_registry import new_registry

_CANARY_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class AgentMetrics:
    """The metrics of one agent, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = new_registry("noderuntime_agent_build_info")
        self._canary_seconds = Histogram(
            "noderuntime_agent_canary_duration_seconds",
            "Duration of canary sandboxes that succeeded, from RunPodSandbox to their removal.",
            ("handler",),
            buckets=_CANARY_SECONDS,
            registry=self._registry,
        )
        self._canary_failures = Counter(
            "noderuntime_agent_canary_failures",
            "Canary sandboxes that failed.",
            ("handler",),
            registry=self._registry,
        )
        self._canary_success = Gauge(
            "noderuntime_agent_canary_success_timestamp_seconds",
            "When a canary sandbox succeeded last.",
            ("handler",),
            registry=self._registry,
        )

    async def probe(self, socket: Path, handlers: list[str]) -> list[Finding]:
        """Probe the handlers and record the results. Raises what the probe raises."""
        findings = await probe.probe(socket, handlers)
        for finding in findings:
            self.probed(finding)
        return findings

    def probed(self, finding: Finding) -> None:
        """Record the result of a canary."""
        self._canary_failures.labels(finding.handler).inc(0 if finding.ready else 1)
        if finding.ready:
            self._canary_seconds.labels(finding.handler).observe(finding.milliseconds / 1000)
            self._canary_success.labels(finding.handler).set(time.time())

    def watch(self, loop: Loop, layout: Layout) -> None:
        """Report the node's state from now on."""
        self._registry.register(_Node(loop, layout))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format 0.0.4. Reads files: call it in a thread."""
        return generate_latest(self._registry)


class _Node(Collector):
    """Collects the node's state at each scrape."""

    def __init__(self, loop: Loop, layout: Layout) -> None:
        self._loop = loop
        self._layout = layout

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the phase, the last report, the switch's last result and the releases."""
        yield self._phase()
        yield GaugeMetricFamily(
            "noderuntime_agent_report_timestamp_seconds",
            "When the API server accepted a status last; 0: never since the start.",
            value=self._loop.reported_at,
        )
        yield from self._switch()
        yield self._releases()

    def _phase(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "noderuntime_agent_phase", "The node's phase: 1, the others 0.", labels=("phase",)
        )
        state = self._loop.state
        for phase in get_args(Phase):
            family.add_metric((phase,), state is not None and state.phase == phase)
        return family

    def _switch(self) -> Iterator[GaugeMetricFamily]:
        info = GaugeMetricFamily(
            "noderuntime_agent_switch_result",
            "Always 1: outcome and reason of the switch's last run.",
            labels=("outcome", "reason"),
        )
        result = load_result(self._layout.result)
        if result:
            info.add_metric((result.outcome, result.reason), 1)
        yield info
        yield GaugeMetricFamily(
            "noderuntime_agent_switch_timestamp_seconds",
            "When the switch's last run ended; 0: never.",
            value=result.finished.timestamp() if result else 0,
        )
        yield GaugeMetricFamily(
            "noderuntime_agent_switch_failures",
            "Consecutive failures of the switch with the present configuration.",
            value=result.failures if result else 0,
        )

    def _releases(self) -> GaugeMetricFamily:
        """Return the releases of the node."""
        family = GaugeMetricFamily(
            "noderuntime_agent_release_info",
            "Always 1: the release that serves, and the one that failed with its reason.",
            labels=("role", "revision", "reason"),
        )
        found = release.load(self._layout)
        if found.serving:
            family.add_metric(("serving", found.serving.revision, ""), 1)
        if found.failed:
            family.add_metric(("failed", found.failed.revision, found.failed.reason), 1)
        return family
