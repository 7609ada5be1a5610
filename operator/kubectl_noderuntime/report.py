"""Reduce a NodeRuntime and its instances to what ``status`` and ``watch`` show. Pure.

``as_dict`` is the JSON of ``-o json``; ``kubectl_noderuntime.tree`` draws the same report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kubectl_noderuntime.nodes import NodeReport, node_report
from kubectl_noderuntime.objects import Json, is_deleted, items, name_of, part
from kubectl_noderuntime.output import clean
from noderuntime_operator.api.names import ROLLBACK_ANNOTATION


@dataclass(frozen=True)
class HandlerReport:
    """A handler, and on how many nodes it is in which state."""

    name: str
    type: str
    runtime_class: str
    states: Mapping[str, int]


@dataclass(frozen=True)
class RuntimeReport:
    """One NodeRuntime with its nodes. Parts of the status that the operator did not write are empty."""

    name: str
    deleting: bool
    paused: bool
    pinned: str
    """The revision that the annotation noderuntime.dev/rollback-to demands, or an empty string."""
    status: Json
    handlers: Sequence[HandlerReport]
    nodes: Sequence[NodeReport]

    @property
    def conditions(self) -> list[Json]:
        """The conditions."""
        return list(items(self.status, "conditions"))

    @property
    def summary(self) -> str:
        """How many nodes are ready."""
        desired, ready = self.status.get("desiredNodes"), self.status.get("readyNodes")
        if desired is None:
            return "the operator has not reported yet"
        return f"{ready or 0} of {desired} nodes ready"


def reports(runtimes: Iterable[Json], instances: Iterable[Json]) -> list[RuntimeReport]:
    """Return a report for each NodeRuntime, by name."""
    by_runtime: dict[str, list[Json]] = {}
    for instance in instances:
        by_runtime.setdefault(str(part(instance, "spec").get("runtimeName")), []).append(instance)
    return [_report(one, by_runtime.get(name_of(one), [])) for one in sorted(runtimes, key=name_of)]


def _report(runtime: Json, instances: Sequence[Json]) -> RuntimeReport:
    states: dict[str, Counter[str]] = {}
    for instance in instances:
        for handler in items(instance, "status", "handlers"):
            states.setdefault(str(handler.get("name")), Counter())[clean(handler.get("state"))] += 1
    return RuntimeReport(
        name=name_of(runtime),
        deleting=is_deleted(runtime),
        paused=bool(part(runtime, "spec", "update").get("paused")),
        pinned=clean(part(runtime, "metadata", "annotations").get(ROLLBACK_ANNOTATION) or ""),
        status=part(runtime, "status"),
        handlers=[
            HandlerReport(
                name=str(handler.get("name")),
                type=str(handler.get("type")),
                runtime_class=str(handler.get("runtimeClassName") or handler.get("name")),
                states=dict(states.get(str(handler.get("name")), {})),
            )
            for handler in items(runtime, "spec", "handlers")
        ],
        nodes=sorted(map(node_report, instances), key=lambda node: node.name),
    )


def as_dict(report: RuntimeReport) -> dict[str, Any]:
    """Return a report as JSON: the status with the handlers and all nodes."""
    found = asdict(report)
    status = found.pop("status")
    return {**found, **status}
