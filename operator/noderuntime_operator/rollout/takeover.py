"""Take over what belongs to a NodeRuntime that does not exist: its finalizer was removed by hand.

A node goes through these steps; each is derived from the cluster's state, none is stored:

    its pods end ──► handler labels removed ──► pods checked again, instance deleted ──► free

Pods hold the node because they select its claim as well: a kubelet that restarts would reject them after
the claim changed. A free node is taken like a new one. noderuntime is still there, and the next agent
changes what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from noderuntime_operator.api.revision import Handler
from noderuntime_operator.cluster_state import ClusterState, PodView, RuntimeView
from noderuntime_operator.rollout import classes, members
from noderuntime_operator.rollout.labels import Changes, closing_labels


@dataclass(frozen=True)
class Takeover:
    """What is done with the nodes of NodeRuntimes that do not exist."""

    pods: tuple[PodView, ...]
    """The pods that hold their nodes."""
    labels: Changes
    delete: tuple[str, ...]
    """The instances to delete."""
    free: frozenset[str]
    """The nodes that can be taken."""


def other_owners(runtime: RuntimeView, handlers: list[Handler], cluster: ClusterState) -> frozenset[str]:
    """Return the other NodeRuntimes that own selected nodes or required RuntimeClasses."""
    if runtime.deleting:
        return frozenset()
    conflicts = members.conflicts_of(runtime.name, members.selected_nodes(runtime, cluster), cluster)
    names = classes.foreign_classes(runtime, handlers, cluster)
    owners = (cluster.runtime_classes[name].owner for name in names)
    return frozenset({*conflicts.values(), *filter(None, owners)})


def vacated_nodes(runtime: RuntimeView, cluster: ClusterState) -> frozenset[str]:
    """Return the selected nodes of NodeRuntimes that do not exist."""
    if runtime.deleting or not cluster.vanished:
        return frozenset()
    conflicts = members.conflicts_of(runtime.name, members.selected_nodes(runtime, cluster), cluster)
    return _vacated(conflicts, cluster)


def take_over(conflicts: Mapping[str, str], handlers: Iterable[Handler], cluster: ClusterState) -> Takeover:
    """Return the next step of each node in conflict whose NodeRuntime does not exist."""
    nodes = _vacated(conflicts, cluster)
    offered = {handler.name for handler in handlers}
    for name in nodes:
        offered |= cluster.nodes[name].handler_labels
        if instance := cluster.instances.get(name):
            offered |= {handler.name for handler in instance.spec.handlers}
    pods = tuple(cluster.pods_on(nodes, offered))
    empty = nodes - {pod.node for pod in pods}
    labels = closing_labels(empty, cluster)
    closed = empty - labels.keys()
    delete = closed & cluster.instances.keys()
    return Takeover(pods, labels, tuple(sorted(delete)), closed - delete)


def _vacated(conflicts: Mapping[str, str], cluster: ClusterState) -> frozenset[str]:
    return frozenset(name for name, owner in conflicts.items() if owner in cluster.vanished)
