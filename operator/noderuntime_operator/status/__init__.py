"""Compute a NodeRuntime's status from a Plan and a ClusterState. Pure: the time is an argument.

Five conditions: Available (handlers can be used on enough nodes), Ready (every selected node does what the
spec promises), Progressing (what a rollout waits for), Degraded (something needs a user's attention) and
RolledBack (the nodes have another revision than the spec's). A message names at most ten nodes, pods or
RuntimeClasses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from noderuntime_operator.api.base import Condition
from noderuntime_operator.api.status import (
    FailingNode,
    NodeRuntimeStatus,
    OutsideNode,
    ReasonCount,
    StateCount,
    VersionCount,
)
from noderuntime_operator.cluster_state import ClusterState, InstanceView, RuntimeView
from noderuntime_operator.rollout import Plan
from noderuntime_operator.status.conditions import Verdict, verdicts
from noderuntime_operator.status.findings import Findings, find
from noderuntime_operator.texts import NAMED, timestamp

Key = TypeVar("Key", str, tuple[str, str])


def status(
    runtime: RuntimeView, cluster: ClusterState, plan: Plan, now: datetime, refusal: str = ""
) -> NodeRuntimeStatus:
    """Return the status of one NodeRuntime; a condition keeps its transition time while its status stays.

    refusal is the API server's error message if it refused to apply the plan.
    """
    found = find(runtime, cluster, plan, now)
    served = [plan.instances[name] for name in plan.selected if name in plan.instances]
    outside = sorted(plan.outside.items())[:NAMED]
    failing = found.failing[:NAMED]
    return NodeRuntimeStatus(
        observed_generation=runtime.generation,
        desired_nodes=len(plan.selected),
        ready_nodes=len(found.ready),
        updated_nodes=len(found.updated),
        available_nodes=found.available,
        unreachable_nodes=len(found.unreachable),
        conditions=[
            _condition(verdict, runtime, now) for verdict in verdicts(runtime, cluster, plan, found, refusal)
        ],
        failing_nodes=[FailingNode(name=n, reason=reason, message=text) for n, reason, text in failing],
        current_revision=_current(runtime, plan),
        update_revision=runtime.status.update_revision if runtime.deleting else plan.target.name,
        failed_revision=plan.failed_revision,
        wave=None if runtime.deleting else plan.wave,
        outside_nodes=[OutsideNode(name=name, reason=reason) for name, reason in outside],
        versions=_versions(served),
        reasons=_reasons(found),
        states=_states(served),
    )


def _current(runtime: RuntimeView, plan: Plan) -> str | None:
    """Return the last revision that was proven: no more nodes are outside its rollout than are Ready."""
    wave = plan.wave
    is_good = not runtime.deleting and wave.phase == "Complete" and wave.ready >= max(1, wave.outside)
    return plan.target.name if is_good else runtime.status.current_revision


def _versions(instances: Iterable[InstanceView]) -> list[VersionCount]:
    """Return how many nodes run each version, with the image that they were given."""
    found = Counter((i.status.runtime_version or "", i.spec.image or "") for i in instances)
    return [VersionCount(version=v, image=image, nodes=n) for (v, image), n in _most(found)]


def _reasons(found: Findings) -> list[ReasonCount]:
    return [
        ReasonCount(reason=r, nodes=n) for r, n in _most(Counter(reason for _, reason, _ in found.failing))
    ]


def _states(instances: Iterable[InstanceView]) -> list[StateCount]:
    found = Counter(str(i.status.phase or "Pending") for i in instances)
    return [StateCount(state=state, nodes=n) for state, n in _most(found)]


def _most(counts: Counter[Key]) -> list[tuple[Key, int]]:
    """Return the ten largest counts, in an order that does not depend on that of the nodes."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:NAMED]


def _condition(verdict: Verdict, runtime: RuntimeView, now: datetime) -> Condition:
    """Return the condition; it keeps its transition time while its status stays."""
    value = "True" if verdict.status else "False"
    old = next((c for c in runtime.status.conditions or () if c.type == verdict.type), None)
    same = old is not None and old.status == value
    return Condition(
        type=verdict.type,
        status="True" if verdict.status else "False",
        observed_generation=runtime.generation,
        last_transition_time=old.last_transition_time if old and same else timestamp(now),
        reason=verdict.reason,
        message=verdict.message[:4096],
    )
