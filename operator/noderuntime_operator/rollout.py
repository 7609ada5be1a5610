"""Plan which nodes change next. Pure: a Plan is computed from a NodeRuntime and a ClusterState.

A node goes through these steps; each is derived from the cluster's state, none is stored:

    selected ──► instance Installed ──► claim label set ──► handler labels set as handlers are proven
                                                                  │ no longer selected
    free ◄── instance deleted ◄── claim label removed ◄── instance Removed ◄── handler labels removed
                                  (agent reports Removed)  (no pods use it)     (no pods use it)

Pods are checked twice, before and after the handler labels are removed, so that a pod which was
scheduled in between is found. A change of ``kubelet.mode`` has the same two checks: pods must not live
in one runtime while the kubelet is connected to another.

At most ``maxUnavailable`` nodes change at a time. A node whose switch failed still counts, so a bad
change stops at the first nodes that it breaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from noderuntime_operator.api import (
    HANDLER_LABEL_PREFIX,
    OWNER_LABEL,
    REMOVING_LABEL,
    InstanceHandler,
    InstanceSpec,
    InstanceStatus,
)
from noderuntime_operator.cluster_state import (
    ClusterState,
    InstanceView,
    NodeView,
    PodView,
    RuntimeView,
    matches,
    number_of,
)
from noderuntime_operator.desired import daemon_set_name, instance_spec

_UNKNOWN = datetime.fromtimestamp(0, UTC)
"""The time of creation of a lost instance."""


@dataclass(frozen=True)
class Plan:
    """The changes that one reconciliation makes, and the obstacles it found."""

    selected: frozenset[str] = frozenset()
    conflicts: Mapping[str, str] = field(default_factory=dict)
    """Selected nodes that belong to another NodeRuntime, and its name."""
    foreign_classes: tuple[str, ...] = ()
    """RuntimeClasses of the required names that this NodeRuntime does not own."""
    unbound_classes: tuple[str, ...] = ()
    """RuntimeClasses of other names that use a handler of this NodeRuntime on nodes of any kind."""
    holding: tuple[PodView, ...] = ()
    """Pods that block a removal (of a node, a handler or the NodeRuntime) or a change of kubelet.mode."""
    mode_held: frozenset[str] = frozenset()
    """Nodes that keep their kubelet.mode, because pods use handlers there."""
    closing: frozenset[str] = frozenset()
    """Nodes whose handler labels are removed now, so that their kubelet.mode can change next."""
    create: Mapping[str, InstanceSpec] = field(default_factory=dict)
    update: Mapping[str, InstanceSpec] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()
    """Nodes that must change but exceed maxUnavailable or are not Ready."""
    labels: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    delete_instances: tuple[str, ...] = ()
    class_labels: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    """RuntimeClasses to close for new pods, or to open again."""
    delete_classes: tuple[str, ...] = ()
    serve: bool = True
    """Whether the RuntimeClasses and the DaemonSet must exist."""
    delete_daemon_set: bool = False
    finished: bool = False
    """Whether nothing of this NodeRuntime is left, so the finalizer can be removed."""


def instances_of(runtime: RuntimeView, cluster: ClusterState) -> dict[str, InstanceView]:
    """Return a NodeRuntime's instances whose node exists, by node, the lost ones included.

    Only the operator ends an instance, after the agent's report, and takes the claim off the node
    before. A claimed node without an instance lost it in another way: noderuntime is still there.
    """
    mine = {
        name: instance
        for name, instance in cluster.instances.items()
        if instance.spec.runtime_name == runtime.name and name in cluster.nodes
    }
    lost = {
        name: InstanceView(
            name, 0, _UNKNOWN, instance_spec(name, runtime.name, runtime.spec), InstanceStatus()
        )
        for name, node in cluster.nodes.items()
        if node.claimed_by == runtime.name and name not in cluster.instances
    }
    return mine | lost


def nodes_to_search(runtime: RuntimeView, cluster: ClusterState) -> frozenset[str]:
    """Return the nodes whose pods must be listed, because something must be removed there."""
    mine = instances_of(runtime, cluster)
    if runtime.deleting or _leaving_classes(runtime, cluster) or _leaving_handlers(runtime, mine):
        return frozenset(mine)
    return frozenset(mine.keys() - _selected(runtime, cluster)) | _changing_mode(runtime, mine)


def plan(runtime: RuntimeView, cluster: ClusterState) -> Plan:
    """Return the Plan for one NodeRuntime."""
    mine = instances_of(runtime, cluster)
    offered = {h.name for h in runtime.spec.handlers} | _leaving_handlers(runtime, mine).keys()
    pods = cluster.pods_on(mine, offered)
    if runtime.deleting and pods:
        labels = _staying_labels(mine, cluster, offered)
        return Plan(
            selected=frozenset(mine),
            holding=tuple(pods),
            labels=labels,
            class_labels=_class_labels(runtime, cluster),
        )
    selected = frozenset() if runtime.deleting else _selected(runtime, cluster)
    held = {pod.node for pod in pods} - selected
    leaving = mine.keys() - selected - held
    retained, kept_pods = _retained(runtime, mine, cluster)
    conflicts = _conflicts(runtime.name, selected, cluster)
    wanted = _wanted(runtime, selected - conflicts.keys(), retained)
    changing_mode = _changing_mode(runtime, mine) & wanted.keys()
    mode_held = changing_mode & {pod.node for pod in pods}
    wanted |= {name: _with_mode_of(mine[name], wanted[name]) for name in mode_held}
    wanted |= _removals(mine, leaving, cluster)
    create, update, waiting = _within_budget(runtime, wanted, mine, cluster)
    changing_mode &= update.keys() - mode_held
    closing = frozenset(name for name in changing_mode if cluster.nodes[name].handler_labels)
    update = {name: spec for name, spec in update.items() if name not in closing}
    staying = {name: instance for name, instance in mine.items() if name not in leaving | changing_mode}
    offers = {h.name for h in runtime.spec.handlers} | {h.name for h in retained}
    labels = _staying_labels(staying, cluster, offers)
    used = {pod.runtime_class for pod in kept_pods}
    return Plan(
        selected=selected,
        conflicts=conflicts,
        foreign_classes=_foreign_classes(runtime, cluster),
        unbound_classes=_unbound_classes(runtime, cluster),
        holding=tuple(pod for pod in pods if pod.node in held | mode_held or pod in kept_pods),
        mode_held=mode_held,
        closing=closing,
        create=create,
        update=update,
        waiting=waiting,
        labels=labels | _leaving_labels(mine, leaving | closing, cluster),
        delete_instances=tuple(
            sorted(
                name
                for name in leaving
                if mine[name].removed and cluster.nodes[name].claimed_by != runtime.name
            )
        ),
        class_labels=_class_labels(runtime, cluster),
        delete_classes=tuple(name for name in _leaving_classes(runtime, cluster) if name not in used),
        serve=not runtime.deleting,
        delete_daemon_set=runtime.deleting and not _has_instances(runtime.name, cluster),
        finished=runtime.deleting and _nothing_left(runtime.name, cluster),
    )


def _selected(runtime: RuntimeView, cluster: ClusterState) -> frozenset[str]:
    """Return the nodes that the selector matches."""
    return frozenset(
        name for name, node in cluster.nodes.items() if matches(runtime.spec.selector, node.labels)
    )


def _conflicts(runtime: str, selected: Iterable[str], cluster: ClusterState) -> dict[str, str]:
    """Return the selected nodes that another NodeRuntime claimed first, and its name."""
    found = {}
    for name in sorted(selected):
        instance = cluster.instances.get(name)
        holder = instance.spec.runtime_name if instance else cluster.nodes[name].claimed_by
        if holder not in (None, runtime):
            found[name] = str(holder)
    return found


def _leaving_handlers(runtime: RuntimeView, mine: Mapping[str, InstanceView]) -> dict[str, InstanceHandler]:
    """Return the handlers in the instances that the spec no longer contains."""
    wanted = {handler.name for handler in runtime.spec.handlers}
    offered = {handler.name: handler for instance in mine.values() for handler in instance.spec.handlers}
    return {name: handler for name, handler in offered.items() if name not in wanted}


def _leaving_classes(runtime: RuntimeView, cluster: ClusterState) -> list[str]:
    """Return this NodeRuntime's RuntimeClasses that the spec no longer requires."""
    wanted = set() if runtime.deleting else {(h.runtime_class, h.name) for h in runtime.spec.handlers}
    return [
        known.name
        for known in cluster.runtime_classes.values()
        if known.owner == runtime.name and (known.name, known.handler) not in wanted
    ]


def _class_labels(runtime: RuntimeView, cluster: ClusterState) -> dict[str, dict[str, str | None]]:
    """Return the label changes that close leaving RuntimeClasses for new pods, and open required ones.

    A class exists until no pod uses it: the kubelet looks it up when it restarts a container.
    """
    leaving = _leaving_classes(runtime, cluster)
    return {
        known.name: {REMOVING_LABEL: "true" if known.name in leaving else None}
        for known in cluster.runtime_classes.values()
        if known.owner == runtime.name and known.removing != (known.name in leaving)
    }


def _foreign_classes(runtime: RuntimeView, cluster: ClusterState) -> tuple[str, ...]:
    """Return the required RuntimeClasses that this NodeRuntime does not own; they are not changed."""
    if runtime.deleting:
        return ()
    known = (cluster.runtime_classes.get(handler.runtime_class) for handler in runtime.spec.handlers)
    return tuple(found.name for found in known if found and found.owner != runtime.name)


def _unbound_classes(runtime: RuntimeView, cluster: ClusterState) -> tuple[str, ...]:
    """Return the RuntimeClasses of other names that use a required handler on nodes of any kind."""
    required = {handler.runtime_class for handler in runtime.spec.handlers}
    handlers = {handler.name for handler in runtime.spec.handlers}
    return tuple(
        known.name
        for known in cluster.runtime_classes.values()
        if known.is_unbound and known.handler in handlers and known.name not in required
    )


def _changing_mode(runtime: RuntimeView, mine: Mapping[str, InstanceView]) -> frozenset[str]:
    """Return the nodes whose kubelet.mode differs from the spec's."""
    mode = runtime.spec.kubelet.mode
    return frozenset(name for name, instance in mine.items() if instance.spec.kubelet.mode != mode)


def _with_mode_of(instance: InstanceView, wanted: InstanceSpec) -> InstanceSpec:
    """Return the desired state with the kubelet.mode that the node has."""
    kubelet = wanted.kubelet.model_copy(update={"mode": instance.spec.kubelet.mode})
    return wanted.model_copy(update={"kubelet": kubelet})


def _retained(
    runtime: RuntimeView, mine: Mapping[str, InstanceView], cluster: ClusterState
) -> tuple[list[InstanceHandler], list[PodView]]:
    """Return the leaving handlers that pods still use, and the pods of leaving handlers and classes."""
    leaving = _leaving_handlers(runtime, mine)
    classes = set(_leaving_classes(runtime, cluster))
    by_handler = cluster.pods_on(mine, leaving)
    by_class = [pod for pod in cluster.pods if pod.node in mine and pod.runtime_class in classes]
    used = {cluster.handler_of(pod.runtime_class) for pod in by_handler}
    return [leaving[name] for name in sorted(used)], sorted({*by_handler, *by_class}, key=str)


def _wanted(
    runtime: RuntimeView, nodes: Iterable[str], retained: Iterable[InstanceHandler]
) -> dict[str, InstanceSpec]:
    """Return the desired state of the nodes that this NodeRuntime serves."""
    template = instance_spec("any", runtime.name, runtime.spec, retained)
    return {name: template.model_copy(update={"node_name": name}) for name in nodes}


def _removals(
    mine: Mapping[str, InstanceView], leaving: Iterable[str], cluster: ClusterState
) -> dict[str, InstanceSpec]:
    """Return the desired state of leaving nodes, once they have no handler labels for the scheduler."""
    return {
        name: mine[name].spec.model_copy(update={"state": "Removed"})
        for name in leaving
        if not cluster.nodes[name].handler_labels
    }


def _within_budget(
    runtime: RuntimeView,
    wanted: Mapping[str, InstanceSpec],
    mine: Mapping[str, InstanceView],
    cluster: ClusterState,
) -> tuple[dict[str, InstanceSpec], dict[str, InstanceSpec], frozenset[str]]:
    """Split the instances to write into (create, update, waiting).

    A node that is already changing can be updated again. One that is off is not counted: its agent has
    not read the change, so the change did not break it. Of the others Ready nodes come first, and no
    instance is created for a node that is not Ready: it may never come back.
    """
    changed = {
        name
        for name, spec in wanted.items()
        if name not in mine or mine[name].lost or mine[name].spec != spec
    }
    moving = {name for name, instance in mine.items() if instance.moving}
    off = {name for name in moving if not cluster.nodes[name].ready and not mine[name].observed}
    most = max(1, number_of(runtime.spec.update.max_unavailable, len(wanted)))
    budget = max(0, most - len(moving - off))
    queue = sorted(
        (not cluster.nodes[name].ready, name)
        for name in changed - moving
        if name in mine or cluster.nodes[name].ready
    )
    chosen = (changed & moving) | {name for _, name in queue[:budget]}
    return (
        {name: wanted[name] for name in sorted(chosen - mine.keys())},
        {name: wanted[name] for name in sorted(chosen & mine.keys())},
        frozenset(changed - chosen),
    )


def _staying_labels(
    instances: Mapping[str, InstanceView], cluster: ClusterState, handlers: Iterable[str]
) -> dict[str, dict[str, str | None]]:
    """Return the label changes of nodes that stay: the claim, and a label for each handler once proven.

    A proven handler keeps its label while it fails: a restarted kubelet checks running pods against
    the RuntimeClass's node selector again, and would reject them. A node whose kubelet uses another
    runtime offers nothing: that runtime would run the pods, or run those of noderuntime a second time.
    Labels of a node that is not claimed yet prove nothing: its kubelet can set them when it registers.
    """
    changes = {}
    for name, instance in instances.items():
        node, claimed = cluster.nodes[name], cluster.nodes[name].claimed_by == instance.spec.runtime_name
        before = node.handler_labels if claimed else frozenset()
        allowed = frozenset() if instance.kubelet_elsewhere else frozenset(handlers)
        change = _label_change(node, (before | _proven(instance)) & allowed)
        if not claimed:
            change[OWNER_LABEL] = instance.spec.runtime_name
        if change:
            changes[name] = change
    return changes


def _proven(instance: InstanceView) -> set[str]:
    """Return the handlers that the last report proves; one about an older spec proves nothing."""
    reported = instance.status.handlers or () if instance.observed else ()
    return {status.name for status in reported if status.state == "Ready"}


def _leaving_labels(
    mine: Mapping[str, InstanceView], leaving: Iterable[str], cluster: ClusterState
) -> dict[str, dict[str, str | None]]:
    """Return the label changes of leaving nodes: first the handlers', the claim once the agent is done."""
    changes = {}
    for name in leaving:
        change = _label_change(cluster.nodes[name], frozenset())
        if mine[name].removed and cluster.nodes[name].claimed_by == mine[name].spec.runtime_name:
            change[OWNER_LABEL] = None
        if change:
            changes[name] = change
    return changes


def _label_change(node: NodeView, handlers: frozenset[str]) -> dict[str, str | None]:
    """Return the changes that make the node's handler labels match these handlers."""
    off: dict[str, str | None] = {
        HANDLER_LABEL_PREFIX + name: None for name in node.handler_labels - handlers
    }
    return off | {HANDLER_LABEL_PREFIX + name: "true" for name in handlers - node.handler_labels}


def _has_instances(runtime: str, cluster: ClusterState) -> bool:
    """Return whether an instance or a claimed node is left, whether or not its counterpart is known."""
    instances, nodes = cluster.instances.values(), cluster.nodes.values()
    return any(known.spec.runtime_name == runtime for known in instances) or any(
        node.claimed_by == runtime for node in nodes
    )


def _nothing_left(runtime: str, cluster: ClusterState) -> bool:
    """Return whether no node, instance, RuntimeClass or agent of this NodeRuntime is left."""
    return not (
        _has_instances(runtime, cluster)
        or daemon_set_name(runtime) in cluster.daemon_sets
        or any(known.owner == runtime for known in cluster.runtime_classes.values())
    )
