"""The labels of nodes: the claim of a NodeRuntime, and the handlers that the node offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from noderuntime_operator.api.names import HANDLER_LABEL_PREFIX, ORPHANED_LABEL, OWNER_LABEL
from noderuntime_operator.cluster_state import ClusterState, InstanceView, NodeView

Changes = dict[str, dict[str, str | None]]
_NONE: frozenset[str] = frozenset()


def staying_labels(
    instances: Mapping[str, InstanceView], cluster: ClusterState, handlers: Iterable[str]
) -> Changes:
    """Return the label changes of nodes that stay: the claim, and a label for each handler once proven.

    A proven handler keeps its label while it fails: a restarted kubelet checks running pods against
    the RuntimeClass's node selector again, and would reject them. A node whose kubelet uses another
    runtime offers nothing: that runtime would run the pods, or run those of noderuntime a second time.
    Labels of a node that is not claimed yet prove nothing: its kubelet can set them when it registers.
    Neither does a label of another client; it is removed first, so that the next one is the operator's.
    """
    changes: Changes = {}
    offered = frozenset(handlers)
    for name, instance in instances.items():
        node, claimed = cluster.nodes[name], cluster.nodes[name].claimed_by == instance.spec.runtime_name
        before = node.handler_labels if claimed else _NONE
        allowed = _NONE if instance.kubelet_elsewhere else offered
        # A report about an older spec proves nothing.
        proven = instance.ready_handlers if instance.observed else _NONE
        change = _label_change(node, (before | proven) & allowed - node.foreign_handlers)
        if not claimed:
            change[OWNER_LABEL] = instance.spec.runtime_name
        if ORPHANED_LABEL in node.labels:
            change[ORPHANED_LABEL] = None
        if change:
            changes[name] = change
    return changes


def leaving_labels(
    mine: Mapping[str, InstanceView], leaving: Iterable[str], cluster: ClusterState
) -> Changes:
    """Return the label changes of leaving nodes: first the handlers', the claim once the agent is done.

    The agent runs only on a claimed node: a claim that was lost before it is done is set again.
    """
    changes: Changes = {}
    for name in leaving:
        instance, claimed_by = mine[name], cluster.nodes[name].claimed_by
        change = _label_change(cluster.nodes[name], _NONE)
        if instance.removed and claimed_by == instance.spec.runtime_name:
            change[OWNER_LABEL] = None
        elif instance.has_run and not instance.removed and claimed_by is None:
            change |= {OWNER_LABEL: instance.spec.runtime_name, ORPHANED_LABEL: None}
        if change:
            changes[name] = change
    return changes


def closing_labels(nodes: Iterable[str], cluster: ClusterState) -> Changes:
    """Return the label changes after which the nodes offer no handler."""
    changes = {name: _label_change(cluster.nodes[name], _NONE) for name in nodes}
    return {name: change for name, change in changes.items() if change}


def orphan_labels(runtime: str, orphans: Iterable[str], cluster: ClusterState) -> Changes:
    """Return the label changes that release nodes on which noderuntime is left."""
    return {
        name: _label_change(cluster.nodes[name], _NONE) | {OWNER_LABEL: None, ORPHANED_LABEL: runtime}
        for name in orphans
    }


def _label_change(node: NodeView, handlers: frozenset[str]) -> dict[str, str | None]:
    """Return the changes that make the node's handler labels match these handlers."""
    if handlers == node.handler_labels:
        return {}
    off: dict[str, str | None] = {
        HANDLER_LABEL_PREFIX + name: None for name in node.handler_labels - handlers
    }
    return off | {HANDLER_LABEL_PREFIX + name: "true" for name in handlers - node.handler_labels}
