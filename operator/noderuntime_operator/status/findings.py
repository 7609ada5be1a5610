"""What the status reports about the nodes: which are ready, available, unreachable, and which fail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from noderuntime_operator.cluster_state import FAILED, ClusterState, InstanceView, NodeView, RuntimeView
from noderuntime_operator.rollout import Plan
from noderuntime_operator.texts import listed, one_line, timestamp

SILENT_AFTER = timedelta(minutes=30)
"""Three missed heartbeats: an agent refreshes its status every ten minutes."""
ABSENT_AFTER = timedelta(seconds=60)
"""Longer than a node is not Ready while the switch restarts its kubelet."""
STARTS_WITHIN = timedelta(minutes=5)
"""Time from the instance's creation to the agent's first report, pulling its image included."""

_REASON_LIMIT = 256

Failure = tuple[str, str, str]
"""The name of a node that fails, the reason and a message."""


@dataclass(frozen=True)
class Findings:
    """The state of the nodes of one NodeRuntime."""

    ready: list[str]
    updated: list[str]
    available: int
    """The number of nodes that offer every handler to pods."""
    elsewhere: list[str]
    """Ready nodes whose kubelet uses another runtime."""
    failing: list[Failure]
    unreachable: list[str]


def find(runtime: RuntimeView, cluster: ClusterState, plan: Plan, now: datetime) -> Findings:
    """Return the state of the nodes of one NodeRuntime."""
    mine = plan.instances
    nodes = sorted(plan.selected)
    absent = {
        name
        for name in plan.selected | mine.keys()
        if not cluster.nodes[name].ready and _is_absent(cluster.nodes[name], now)
    }
    concerned = sorted(plan.selected | mine.keys())
    failing = [found for name in concerned if (found := _failure(name, plan, cluster, absent, now))]
    broken = {name for name, _, _ in failing} | absent
    changing = plan.update.keys() | plan.waiting | plan.mode_held | plan.closing
    updated = [name for name in nodes if name in mine and mine[name].observed and name not in changing]
    ready = [name for name in updated if mine[name].status.phase == "Ready" and name not in broken]
    required = _required(runtime, cluster, plan)
    is_manual = plan.target.revision.kubelet.mode == "Manual"
    available = (n for n in nodes if n in mine and _offers(mine[n], cluster.nodes[n], required, is_manual))
    return Findings(
        ready=ready,
        updated=updated,
        available=sum(name not in absent for name in available),
        elsewhere=[name for name in ready if mine[name].kubelet_elsewhere],
        failing=failing,
        unreachable=sorted(absent & mine.keys()),
    )


def _required(runtime: RuntimeView, cluster: ClusterState, plan: Plan) -> frozenset[str]:
    """Return the handlers that nodes must offer: one that a rollout adds is not missing yet."""
    target = frozenset(handler.name for handler in plan.handlers)
    current = cluster.revisions.get(runtime.status.current_revision or "")
    return target & {handler.name for handler in current.revision.handlers} if current else target


def _offers(instance: InstanceView, node: NodeView, required: frozenset[str], is_manual: bool) -> bool:
    """Return whether pods of every handler can start on the node, as far as its agent knows.

    In mode Manual the kubelet can use another runtime; then the daemon must serve every handler.
    """
    if instance.status.phase == "Failed":
        return False
    if is_manual and instance.kubelet_elsewhere:
        return required <= instance.ready_handlers
    # A handler that is Ready gets its label now.
    return not instance.has_broken_handler and required <= node.handler_labels | instance.ready_handlers


def _is_absent(node: NodeView, now: datetime) -> bool:
    """Return whether a node has not been Ready for longer than the restart of its kubelet takes."""
    return node.since is None or now - node.since > ABSENT_AFTER


def _failure(name: str, plan: Plan, cluster: ClusterState, absent: set[str], now: datetime) -> Failure | None:
    """Return why a node fails, or None if it is Ready or still changing."""
    if name in plan.conflicts:
        return name, "ClaimedByOther", one_line(_claimed(name, plan, cluster))
    instance = cluster.instances.get(name)
    if instance and instance.status.phase in FAILED:
        reason, message = instance.failure
        return name, reason[:_REASON_LIMIT], one_line(message)
    if name in absent:
        return name, "NodeNotReady", f"node {name} is not Ready"
    if name in plan.late:
        return name, "Late", one_line(plan.late[name])
    return _silence(instance, now) if instance else None


def _claimed(node: str, plan: Plan, cluster: ClusterState) -> str:
    """Return which NodeRuntime owns a node, and what delays that the node is taken over."""
    owner = plan.conflicts[node]
    message = f"node {node} belongs to NodeRuntime {owner}"
    if owner not in cluster.vanished:
        return message
    pods = sorted(str(pod) for pod in plan.holding_takeover if pod.node == node)
    waits = f"after the end of its pods: {listed(pods)}" if pods else "now"
    return f"{message}, which does not exist; the node is taken over {waits}"


def _silence(instance: InstanceView, now: datetime) -> Failure | None:
    """Return the failure of an agent that missed its heartbeats or never reported."""
    last, name = instance.heartbeat, instance.name
    if last and now - last > SILENT_AFTER:
        return name, "AgentSilent", f"the agent of node {name} has not reported since {timestamp(last)}"
    if not instance.status.phase and now - instance.created > STARTS_WITHIN:
        text = f"no agent has reported from node {name}: check the pods of the agents' DaemonSet"
        return name, "NoAgent", text
    return None
