"""Which nodes, instances and handlers belong to a NodeRuntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from noderuntime_operator.api.instance import InstanceHandler, InstanceStatus
from noderuntime_operator.api.names import OWNER_LABEL
from noderuntime_operator.api.revision import Revision
from noderuntime_operator.cluster_state import ClusterState, InstanceView, NodeView, RuntimeView, matches
from noderuntime_operator.desired import instance_spec

_UNKNOWN = datetime.fromtimestamp(0, UTC)
"""The time of creation of a lost instance."""


def instances_of(runtime: RuntimeView, cluster: ClusterState, revision: Revision) -> dict[str, InstanceView]:
    """Return a NodeRuntime's instances whose node exists, by node, the lost ones included.

    Only the operator ends an instance, after the agent's report, and takes the claim off the node
    before. A claimed node without an instance lost it in another way: noderuntime is still there.
    """
    mine = {
        name: instance
        for name, instance in cluster.instances.items()
        if instance.spec.runtime_name == runtime.name
        and name in cluster.nodes
        and not _is_of_another_node(instance, cluster.nodes[name])
    }
    lost = [
        name
        for name, node in cluster.nodes.items()
        if name not in cluster.instances and node.labels.get(OWNER_LABEL) == runtime.name
    ]
    for name in lost:
        spec = instance_spec(name, runtime.name, revision)
        mine[name] = InstanceView(name, 0, _UNKNOWN, spec, InstanceStatus())
    return mine


def outlived(runtime: RuntimeView, cluster: ClusterState) -> frozenset[str]:
    """Return the instances whose Node was created again under its name: they report about another node."""
    return frozenset(
        name
        for name, instance in cluster.instances.items()
        if instance.spec.runtime_name == runtime.name
        and name in cluster.nodes
        and _is_of_another_node(instance, cluster.nodes[name])
    )


def _is_of_another_node(instance: InstanceView, node: NodeView) -> bool:
    return instance.node_uid not in ("", node.uid)


def selected_nodes(runtime: RuntimeView, cluster: ClusterState) -> frozenset[str]:
    """Return the nodes that the selector matches."""
    selector = runtime.spec.selector
    return frozenset(name for name, node in cluster.nodes.items() if matches(selector, node.labels))


def conflicts_of(runtime: str, selected: Iterable[str], cluster: ClusterState) -> dict[str, str]:
    """Return the selected nodes that another NodeRuntime claimed first, and its name."""
    found = {}
    for name in selected:
        instance = cluster.instances.get(name)
        holder = instance.spec.runtime_name if instance else cluster.nodes[name].claimed_by
        if holder not in (None, runtime):
            found[name] = str(holder)
    return dict(sorted(found.items()))


def leaving_handlers(revision: Revision, mine: Mapping[str, InstanceView]) -> dict[str, InstanceHandler]:
    """Return the handlers in the instances that the revision does not contain."""
    wanted = {handler.name for handler in revision.handlers}
    specs = {instance.template: instance.spec for instance in mine.values()}
    offered = {handler.name: handler for spec in specs.values() for handler in spec.handlers}
    return {name: handler for name, handler in offered.items() if name not in wanted}


def changing_mode(revision: Revision, mine: Mapping[str, InstanceView]) -> frozenset[str]:
    """Return the nodes whose kubelet.mode differs from the revision's."""
    mode = revision.kubelet.mode
    return frozenset(name for name, instance in mine.items() if instance.spec.kubelet.mode != mode)


def orphans_of(
    runtime: RuntimeView, mine: Mapping[str, InstanceView], cluster: ClusterState
) -> frozenset[str]:
    """Return the nodes that have been unreachable for too long to hold the deletion any further."""
    removal = runtime.spec.removal
    if not runtime.deleting or removal.policy == "WaitForever":
        return frozenset()
    latest = cluster.now - timedelta(seconds=removal.orphan_after_seconds)
    return frozenset(name for name in mine if _is_down_since(cluster.nodes[name], latest))


def _is_down_since(node: NodeView, latest: datetime) -> bool:
    return not node.ready and node.since is not None and node.since <= latest
