"""Compute a NodeRuntime's status from a Plan and a ClusterState. Pure: the time is an argument.

Three conditions: Ready (every selected node does what the spec promises), Progressing (changes are under
way or wait) and Degraded (something needs a user's attention). A message names at most ten nodes,
pods or RuntimeClasses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from noderuntime_operator.api import Condition, FailingNode, NodeRuntimeStatus
from noderuntime_operator.cluster_state import (
    ClusterState,
    ImagePullView,
    InstanceView,
    NodeView,
    RuntimeView,
)
from noderuntime_operator.rollout import Plan, instances_of

NAMED = 10
SILENT_AFTER = timedelta(minutes=30)
"""Three missed heartbeats: an agent refreshes its status every ten minutes."""
ABSENT_AFTER = timedelta(seconds=60)
"""Longer than a node is not Ready while the switch restarts its kubelet."""

STARTS_WITHIN = timedelta(minutes=5)
"""Time from the instance's creation to the agent's first report, pulling its image included."""

_REASON_LIMIT, _MESSAGE_LIMIT = 256, 1024


@dataclass(frozen=True)
class Verdict:
    """One condition without its transition time."""

    type: str
    status: bool
    reason: str
    message: str


def status(
    runtime: RuntimeView, cluster: ClusterState, plan: Plan, now: datetime, refusal: str = ""
) -> NodeRuntimeStatus:
    """Return the status of one NodeRuntime; a condition keeps its transition time while its status stays.

    refusal is the API server's error message if it refused to apply the plan.
    """
    mine = instances_of(runtime, cluster)
    nodes = sorted(plan.selected)
    concerned = sorted(plan.selected | mine.keys())
    failing = [found for name in concerned if (found := _failure(name, plan, cluster, now))]
    unreachable = [name for name in sorted(mine) if _is_absent(cluster.nodes[name], now)]
    pulls = cluster.image_pulls_of(runtime.name)
    broken = {found.name for found in failing} | {name for name in nodes if not cluster.nodes[name].ready}
    changing = plan.update.keys() | plan.waiting | plan.mode_held | plan.closing
    updated = [name for name in nodes if name in mine and mine[name].observed and name not in changing]
    ready = [name for name in updated if mine[name].status.phase == "Ready" and name not in broken]
    counts = (len(ready), len(updated), len(nodes))
    elsewhere = [name for name in ready if mine[name].kubelet_elsewhere]
    verdicts = (
        _ready(runtime, plan, counts, failing, elsewhere),
        _progressing(runtime, plan, mine, unreachable),
        _degraded(plan, failing, refusal, unreachable if runtime.deleting else (), pulls),
    )
    return NodeRuntimeStatus(
        observed_generation=runtime.generation,
        desired_nodes=len(nodes),
        ready_nodes=len(ready),
        updated_nodes=len(updated),
        unreachable_nodes=len(unreachable),
        conditions=[_condition(verdict, runtime, now) for verdict in verdicts],
        failing_nodes=failing[:NAMED],
    )


def _failure(name: str, plan: Plan, cluster: ClusterState, now: datetime) -> FailingNode | None:
    """Return why a node fails, or None if it is Ready or still changing."""
    if name in plan.conflicts:
        other = plan.conflicts[name]
        return _failing(name, "ClaimedByOther", f"node {name} belongs to NodeRuntime {other}")
    instance = cluster.instances.get(name)
    if instance and instance.status.phase in ("Failed", "Degraded"):
        return _failing(name, *_reported_failure(instance))
    if _is_absent(cluster.nodes[name], now):
        return _failing(name, "NodeNotReady", f"node {name} is not Ready")
    return _silence(instance, now) if instance else None


def _reported_failure(instance: InstanceView) -> tuple[str, str]:
    """Return the reason and message that an agent reports: of its broken handlers, else of its node."""
    broken = [h for h in instance.status.handlers or () if h.state == "Broken"]
    if instance.status.phase == "Degraded" and broken:
        first = broken[0]
        message = "; ".join(f"handler {h.name}: {h.message or h.reason or 'broken'}" for h in broken)
        return first.reason or "HandlerBroken", message
    for condition in instance.status.conditions or ():
        if condition.type == "Ready" and condition.status != "True":
            return condition.reason, condition.message
    return str(instance.status.phase), f"the agent reports phase {instance.status.phase}"


def _is_absent(node: NodeView, now: datetime) -> bool:
    """Return whether a node has not been Ready for longer than the restart of its kubelet takes."""
    return not node.ready and (node.since is None or now - node.since > ABSENT_AFTER)


def _silence(instance: InstanceView, now: datetime) -> FailingNode | None:
    """Return the failure of an agent that missed its heartbeats or never reported."""
    last = instance.heartbeat
    if last and now - last > SILENT_AFTER:
        text = f"the agent of node {instance.name} has not reported since {_timestamp(last)}"
        return _failing(instance.name, "AgentSilent", text)
    if not instance.status.phase and now - instance.created > STARTS_WITHIN:
        text = f"no agent has reported from node {instance.name}: check the pods of the agents' DaemonSet"
        return _failing(instance.name, "NoAgent", text)
    return None


def _failing(name: str, reason: str, message: str) -> FailingNode:
    return FailingNode(name=name, reason=reason[:_REASON_LIMIT], message=_one_line(message))


def _ready(
    runtime: RuntimeView,
    plan: Plan,
    counts: tuple[int, int, int],
    failing: Sequence[FailingNode],
    elsewhere: Sequence[str],
) -> Verdict:
    """Return the condition Ready: whether every selected node does what kubelet.mode promises.

    In mode Manual that is to serve the socket. elsewhere names ready nodes whose kubelet does not use it.
    """
    ready, updated, desired = counts
    summary = f"{ready} of {desired} nodes are ready"
    if plan.mode_held or (runtime.deleting and plan.holding):
        reason, message = "PodsStillRunning", _held(runtime, plan)
    elif runtime.deleting:
        reason, message = "Deleting", "noderuntime is being removed from the nodes"
    elif plan.foreign_classes:
        reason, message = "RuntimeClassConflict", _foreign(plan)
    elif not desired:
        reason, message = "NoNodes", "no node matches spec.selector"
    elif ready == updated == desired and elsewhere:
        message = (
            f"{desired} of {desired} nodes serve noderuntime's socket; RuntimeClasses are not offered on"
            f" {len(elsewhere)} nodes, because their kubelet uses another runtime: {_list(elsewhere)}"
        )
        return Verdict("Ready", True, "SocketServed", message)
    elif ready == updated == desired:
        return Verdict("Ready", True, "AllNodesReady", summary)
    elif failing:
        reason, message = "NodesFailing", f"{summary}; {_nodes(failing)}"
    else:
        reason, message = "Installing", summary
    return Verdict("Ready", False, reason, message)


def _progressing(
    runtime: RuntimeView, plan: Plan, mine: Mapping[str, InstanceView], unreachable: Sequence[str]
) -> Verdict:
    """Return the condition Progressing: what is changing, or waits to change."""
    if plan.holding:
        return Verdict("Progressing", True, "PodsStillRunning", _held(runtime, plan))
    written = {*plan.create, *plan.update, *plan.closing}
    changing = {i.name for i in mine.values() if i.moving and i.status.phase != "Failed"}
    moving = sorted(written | changing)
    if runtime.deleting and unreachable and mine.keys() <= set(unreachable):
        return Verdict("Progressing", True, "UnreachableNodes", _unreachable(unreachable))
    if runtime.deleting:
        names = _list(sorted({*moving, *plan.waiting} - set(unreachable)))
        also = f"; {_unreachable(unreachable)}" if unreachable else ""
        message = f"removing noderuntime from nodes: {names or 'none'}{also}"
        return Verdict("Progressing", True, "Removing", message)
    if moving:
        wait = f"; {len(plan.waiting)} more wait" if plan.waiting else ""
        return Verdict("Progressing", True, "NodesChanging", f"changing: {_list(moving)}{wait}")
    if plan.waiting:
        names = _list(sorted(plan.waiting))
        message = f"not changed, because maxUnavailable nodes have failed or the nodes are not Ready: {names}"
        return Verdict("Progressing", False, "Stopped", message)
    return Verdict("Progressing", False, "Complete", "all nodes are up to date")


def _degraded(
    plan: Plan,
    failing: Sequence[FailingNode],
    refusal: str,
    unreachable: Sequence[str],
    pulls: Sequence[ImagePullView],
) -> Verdict:
    """Return the condition Degraded: what needs a user's attention, the most general cause first.

    unreachable names the nodes that hold a deletion.
    """
    common = Counter(node.reason for node in failing).most_common(1)
    causes = (
        ("Refused", f"the API server refused a request: {_one_line(refusal)}" if refusal else ""),
        ("RuntimeClassConflict", _foreign(plan) if plan.foreign_classes else ""),
        ("UnreachableNodes", _unreachable(unreachable) if unreachable else ""),
        ("AgentImagePull", _pulls(pulls) if pulls else ""),
        (common[0][0] if common else "", _nodes(failing)),
        ("RuntimeClassConflict", _unbound(plan) if plan.unbound_classes else ""),
    )
    for reason, message in causes:
        if message:
            return Verdict("Degraded", True, reason, message)
    return Verdict("Degraded", False, "AsExpected", "no node has failed")


def _held(runtime: RuntimeView, plan: Plan) -> str:
    pods = sorted(map(str, plan.holding))
    blocked = ""
    if plan.mode_held:
        mode, nodes = runtime.spec.kubelet.mode, _list(sorted(plan.mode_held))
        blocked = f"kubelet.mode {mode} is not applied to nodes with such pods ({nodes}): "
    text = f"{len(pods)} pods still use handlers of this NodeRuntime; delete them first: {_list(pods)}"
    return blocked + text


def _unreachable(nodes: Sequence[str]) -> str:
    return (
        f"the removal waits for {len(nodes)} unreachable nodes, until they are Ready or their Node objects"
        f" are deleted: {_list(nodes)}"
    )


def _pulls(pulls: Sequence[ImagePullView]) -> str:
    first, nodes = pulls[0], sorted({pull.node for pull in pulls})
    message = f"the image {first.image} of the agents cannot be pulled on {len(nodes)} nodes: {_list(nodes)}"
    return f"{message}: {first.reason}: {_one_line(first.message)}"


def _foreign(plan: Plan) -> str:
    names = _list(sorted(plan.foreign_classes))
    return f"RuntimeClass {names} exists and does not belong to this NodeRuntime; it is not changed"


def _unbound(plan: Plan) -> str:
    names = _list(sorted(plan.unbound_classes))
    return (
        f"RuntimeClass {names} uses a handler of this NodeRuntime, but does not select its nodes, so other"
        ' nodes run such pods in another runtime: add handler.noderuntime.dev/<handler>: "true" to'
        " scheduling.nodeSelector, or rename the handler"
    )


def _nodes(failing: Sequence[FailingNode]) -> str:
    return _list([f"{node.name}: {node.message}" for node in failing], "; ")


def _list(names: Sequence[str], separator: str = ", ") -> str:
    """Return at most ten names, and the number of the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return separator.join(names[:NAMED]) + more


def _one_line(text: str) -> str:
    """Return a message as one line of bounded length."""
    return " ".join(text.split())[:_MESSAGE_LIMIT]


def _condition(verdict: Verdict, runtime: RuntimeView, now: datetime) -> Condition:
    """Return the condition; it keeps its transition time while its status stays."""
    value = "True" if verdict.status else "False"
    old = next((c for c in runtime.status.conditions or () if c.type == verdict.type), None)
    same = old is not None and old.status == value
    return Condition(
        type=verdict.type,
        status="True" if verdict.status else "False",
        observed_generation=runtime.generation,
        last_transition_time=old.last_transition_time if old and same else _timestamp(now),
        reason=verdict.reason,
        message=verdict.message[:4096],
    )


def _timestamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
