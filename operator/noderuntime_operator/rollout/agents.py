"""Which pods of agents are deleted: the DaemonSet is OnDelete, and creates them from its template."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from noderuntime_operator.api.names import ORPHANED_LABEL
from noderuntime_operator.cluster_state import AgentPodView, ClusterState, InstanceView, RuntimeView

_SILENT = timedelta(seconds=60)
"""Time within which an agent's pod starts and reports."""
_LOST_AT_ONCE = 50
"""Pods of a lost ServiceAccount that are replaced in one reconciliation."""


def agents_to_search(runtime: RuntimeView, cluster: ClusterState) -> frozenset[str]:
    """Return the nodes whose agent's pod must be listed: its image is perhaps not the instance's.

    The agent's report names its image. One that does not report in time may not run at all.
    """
    mine = (i for i in cluster.instances.values() if i.spec.runtime_name == runtime.name)
    found = {i.name for i in mine if _has_another_agent(i, cluster)}
    if runtime.deleting:
        nodes = cluster.nodes.values()
        found |= {n.name for n in nodes if n.labels.get(ORPHANED_LABEL) == runtime.name}
    return frozenset(found)


def _has_another_agent(instance: InstanceView, cluster: ClusterState) -> bool:
    if instance.observed or instance.spec.image is None or instance.spec.state == "Removed":
        return False
    node = cluster.nodes.get(instance.name)
    if node is None or not node.ready:
        return False
    silent = instance.taken is None or cluster.now - instance.taken > _SILENT
    reported = instance.status.phase is not None
    return silent or (reported and instance.status.agent_image != instance.spec.image)


def replaced(
    mine: Mapping[str, InstanceView], template: str, cluster: ClusterState
) -> tuple[AgentPodView, ...]:
    """Return the pods to delete: those of another image than their instance's, and those without access.

    template is the DaemonSet's image; it cannot replace a pod on a node that has another one.
    """
    pods = [pod for pod in cluster.agent_pods if pod.node in mine]
    other = [pod for pod in pods if mine[pod.node].spec.image == template != pod.image]
    return (*other, *(pod for pod in refused(mine, cluster) if pod not in other))


def replaced_for_removal(
    mine: Mapping[str, InstanceView], template: str, cluster: ClusterState
) -> tuple[AgentPodView, ...]:
    """Return the pods to delete in a deletion: those that cannot work. An agent of any image removes."""
    pulls = [pod for pod in cluster.agent_pods if pod.node in mine and pod.pull]
    stuck = [pod for pod in pulls if template not in ("", pod.image)]
    return (*stuck, *(pod for pod in refused(mine, cluster) if pod not in stuck))


def refused(mine: Mapping[str, InstanceView], cluster: ClusterState) -> tuple[AgentPodView, ...]:
    """Return pods whose ServiceAccount was created again: the API server refuses their tokens for ever."""
    lost = [pod for pod in cluster.agent_pods if pod.node in mine and _is_lost(pod, cluster)]
    return tuple(lost[:_LOST_AT_ONCE])


def abandoned(runtime: str, cluster: ClusterState) -> tuple[AgentPodView, ...]:
    """Return the pods on orphaned nodes that are off: no kubelet confirms their end."""
    return tuple(pod for pod in cluster.agent_pods if _is_orphaned(pod.node, runtime, cluster))


def _is_lost(pod: AgentPodView, cluster: ClusterState) -> bool:
    return bool(pod.service_account) and pod.service_account != cluster.service_account


def _is_orphaned(name: str, runtime: str, cluster: ClusterState) -> bool:
    node = cluster.nodes.get(name)
    return node is not None and not node.ready and node.labels.get(ORPHANED_LABEL) == runtime
