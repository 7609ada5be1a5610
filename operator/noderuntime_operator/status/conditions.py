"""The conditions of a NodeRuntime, without their times."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from noderuntime_operator.cluster_state import ClusterState, RuntimeView, number_of
from noderuntime_operator.rollout import Plan
from noderuntime_operator.status import texts
from noderuntime_operator.status.findings import Findings
from noderuntime_operator.texts import RETRIED, listed, one_line


@dataclass(frozen=True)
class Verdict:
    """One condition without its transition time."""

    type: str
    status: bool
    reason: str
    message: str


def verdicts(
    runtime: RuntimeView, cluster: ClusterState, plan: Plan, found: Findings, refusal: str
) -> tuple[Verdict, ...]:
    """Return all conditions."""
    return (
        _available(runtime, plan, found),
        _ready(runtime, plan, found),
        _progressing(runtime, plan, found),
        _degraded(runtime, cluster, plan, found, refusal),
        _rolled_back(runtime, plan),
    )


def _available(runtime: RuntimeView, plan: Plan, found: Findings) -> Verdict:
    """Return the condition Available: whether every handler can be used on at least minAvailable nodes."""
    desired = len(plan.selected)
    needed = number_of(runtime.spec.min_available, desired)
    message = f"pods of every handler can start on {found.available} of {desired} nodes"
    if runtime.deleting:
        return Verdict("Available", False, "Deleting", "noderuntime is being removed from the nodes")
    if not desired:
        return Verdict("Available", False, "NoNodes", "no node matches spec.selector")
    if found.available >= needed:
        return Verdict("Available", True, "EnoughNodes", message)
    return Verdict("Available", False, "TooFewNodes", f"{message}; minAvailable requires {needed}")


def _ready(runtime: RuntimeView, plan: Plan, found: Findings) -> Verdict:
    """Return the condition Ready: whether every selected node does what the spec promises.

    In mode Manual that is to serve the socket, whether or not the kubelet uses it.
    """
    desired = len(plan.selected)
    summary = f"{len(found.ready)} of {desired} nodes are ready"
    complete = len(found.ready) == len(found.updated) == desired
    if plan.mode_held or (runtime.deleting and plan.holding):
        reason, message = "PodsStillRunning", texts.held(plan)
    elif runtime.deleting:
        reason, message = "Deleting", "noderuntime is being removed from the nodes"
    elif plan.foreign_classes:
        reason, message = "RuntimeClassConflict", texts.foreign(plan)
    elif not desired:
        reason, message = "NoNodes", "no node matches spec.selector"
    elif plan.target.name != plan.desired:
        reason, message = "RolledBack", f"{summary} with revision {plan.target.name}; the spec is not applied"
    elif complete and found.elsewhere:
        return Verdict("Ready", True, "SocketServed", texts.elsewhere(desired, found.elsewhere))
    elif complete:
        return Verdict("Ready", True, "AllNodesReady", summary)
    elif found.failing:
        reason, message = "NodesFailing", f"{summary}; {texts.failures(found)}"
    else:
        reason, message = "Installing", summary
    return Verdict("Ready", False, reason, message)


def _progressing(runtime: RuntimeView, plan: Plan, found: Findings) -> Verdict:
    """Return the condition Progressing: the wave of the rollout, and what it waits for."""
    if plan.holding:
        return Verdict("Progressing", True, "PodsStillRunning", texts.held(plan))
    if runtime.deleting:
        return _removing(plan, found)
    wave = plan.wave
    message = f"{wave.updated} of {wave.nodes} nodes were given revision {plan.target.name}"
    if wave.waiting_for:
        message += f"; waiting for {wave.waiting_for}" if wave.phase != "Stopped" else f"; {wave.waiting_for}"
    if wave.phase == "Stopped":
        message += f"; {texts.failures(found)}"
    if plan.outside:
        message += f"; left out for now: {texts.outside(plan)}"
    leaving = sorted({*plan.update, *(i.name for i in plan.instances.values() if i.moving)} - plan.selected)
    if leaving:
        message += f"; noderuntime is being removed from {listed(leaving)}"
    if wave.phase == "Complete":
        return Verdict("Progressing", bool(leaving), "Removing" if leaving else "Complete", message)
    return Verdict("Progressing", wave.phase in ("Canary", "Soaking", "Rolling"), wave.phase, message)


def _removing(plan: Plan, found: Findings) -> Verdict:
    """Return the condition Progressing of a deletion."""
    mine, unreachable = plan.instances, found.unreachable
    if unreachable and mine.keys() <= set(unreachable):
        return Verdict("Progressing", True, "UnreachableNodes", texts.unreachable(unreachable))
    moving = {*plan.update, *plan.waiting, *(i.name for i in mine.values() if i.moving)}
    names = listed(sorted(moving - set(unreachable)))
    also = f"; {texts.unreachable(unreachable)}" if unreachable else ""
    return Verdict(
        "Progressing", True, "Removing", f"removing noderuntime from nodes: {names or 'none'}{also}"
    )


def _degraded(
    runtime: RuntimeView, cluster: ClusterState, plan: Plan, found: Findings, refusal: str
) -> Verdict:
    """Return the condition Degraded: what needs a user's attention, the most general cause first."""
    common = Counter(reason for _, reason, _ in found.failing).most_common(1)
    pulls = cluster.image_pulls
    holding = found.unreachable if runtime.deleting else ()
    causes = (
        ("Refused", f"the API server refused a request: {one_line(refusal)}" if refusal else ""),
        ("UnknownRevision", plan.target_problem),
        ("RuntimeClassConflict", texts.foreign(plan) if plan.foreign_classes else ""),
        ("OrphanedNodes", texts.orphaned(runtime, plan) if plan.orphaned else ""),
        ("UnreachableNodes", texts.unreachable(holding) if holding else ""),
        ("AgentImagePull", texts.pulls(pulls) if pulls else ""),
        (common[0][0] if common else "", texts.failures(found)),
        ("RuntimeClassConflict", texts.unbound(plan) if plan.unbound_classes else ""),
    )
    for reason, message in causes:
        if message:
            return Verdict("Degraded", True, reason, message)
    return Verdict("Degraded", False, "AsExpected", "no node has failed")


def _rolled_back(runtime: RuntimeView, plan: Plan) -> Verdict:
    """Return the condition RolledBack: whether the nodes get another revision than the spec's, and why."""
    name, failed = plan.target.name, plan.failed_revision
    if name == plan.desired:
        return Verdict("RolledBack", False, "SpecApplied", texts.given(plan, f"the spec's revision {name}"))
    given = texts.given(plan, f"revision {name}")
    if runtime.rollback_to == name:
        message = f"{given}; the annotation rollback-to requests revision {name}"
        return Verdict("RolledBack", True, "Requested", message)
    if plan.target_problem:
        return Verdict("RolledBack", True, "UnknownRevision", f"{given}: {plan.target_problem}")
    why = failed.message if failed else ""
    message = f"revision {plan.desired} failed, and {given}: {why}; {RETRIED}"
    return Verdict("RolledBack", True, "RolloutFailed", message)
