"""Which nodes may move next. Pure: a NodeRuntime and an Observation give a Plan.

A node goes through these steps; each is derived from what is seen, none is stored:

    selected ──► instance Installed ──► claimed label ──► handler labels as handlers are proven
                                                                 │ no longer selected
    free ◄── instance deleted ◄── claimed label off ◄── instance Removed ◄── handler labels off
                                 (agent said Removed)    (no pods of ours)   (no pods of ours)

The pods are looked at twice, before the handler labels go and after, so that a pod which was
scheduled in between is still seen. At most ``maxUnavailable`` nodes move at the same time;
a node whose switch failed keeps counting, so a bad change stops where it first fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from noderuntime_operator.api import (
    HANDLER_LABEL_PREFIX,
    OWNER_LABEL,
    InstanceHandler,
    InstanceSpec,
)
from noderuntime_operator.desired import daemon_set_name, instance_spec
from noderuntime_operator.observation import (
    InstanceView,
    NodeView,
    Observation,
    PodView,
    RuntimeView,
    matches,
)


@dataclass(frozen=True)
class Plan:
    """What one reconcile has to do, and what it found on the way."""

    selected: frozenset[str] = frozenset()
    conflicts: Mapping[str, str] = field(default_factory=dict)
    """Selected nodes that another NodeRuntime has, and its name."""
    foreign_classes: tuple[str, ...] = ()
    """RuntimeClasses of wanted names that are not ours."""
    holding: tuple[PodView, ...] = ()
    """Pods that keep a node, a handler or the whole NodeRuntime from going."""
    create: Mapping[str, InstanceSpec] = field(default_factory=dict)
    update: Mapping[str, InstanceSpec] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()
    """Nodes that have to move but may not yet."""
    labels: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    delete_instances: tuple[str, ...] = ()
    delete_classes: tuple[str, ...] = ()
    serve: bool = True
    """Whether RuntimeClasses and DaemonSet have to be there."""
    delete_daemon_set: bool = False
    finished: bool = False
    """Nothing of ours is left: the finalizer can go."""


def nodes_to_search(runtime: RuntimeView, seen: Observation) -> frozenset[str]:
    """Return the nodes whose pods have to be known, because something there has to go."""
    mine = seen.instances_of(runtime.name)
    if runtime.deleting or _leaving_classes(runtime, seen) or _leaving_handlers(runtime, mine):
        return frozenset(mine)
    return frozenset(mine.keys() - _selected(runtime, seen))


def plan(runtime: RuntimeView, seen: Observation) -> Plan:
    """Return what has to be done for one NodeRuntime."""
    mine = seen.instances_of(runtime.name)
    offered = {h.name for h in runtime.spec.handlers} | _leaving_handlers(runtime, mine).keys()
    pods = seen.pods_on(mine, offered)
    if runtime.deleting and pods:
        labels = _staying_labels(mine, seen, offered)
        return Plan(selected=frozenset(mine), holding=tuple(pods), labels=labels)
    selected = frozenset() if runtime.deleting else _selected(runtime, seen)
    held = {pod.node for pod in pods} - selected
    leaving = mine.keys() - selected - held
    retained, kept_pods = _retained(runtime, mine, seen)
    conflicts = _conflicts(runtime.name, selected, seen)
    wanted = _wanted(runtime, selected - conflicts.keys(), retained)
    wanted |= _removals(mine, leaving, seen)
    create, update, waiting = _within_budget(runtime, wanted, mine, seen)
    staying = {name: instance for name, instance in mine.items() if name not in leaving}
    offers = {h.name for h in runtime.spec.handlers} | {h.name for h in retained}
    labels = _staying_labels(staying, seen, offers)
    used = {pod.runtime_class for pod in kept_pods}
    return Plan(
        selected=selected,
        conflicts=conflicts,
        foreign_classes=_foreign_classes(runtime, seen),
        holding=tuple(pod for pod in pods if pod.node in held or pod in kept_pods),
        create=create,
        update=update,
        waiting=waiting,
        labels=labels | _leaving_labels(mine, leaving, seen) | _stale_labels(runtime.name, selected, seen),
        delete_instances=tuple(sorted(name for name in leaving if mine[name].removed)),
        delete_classes=tuple(name for name in _leaving_classes(runtime, seen) if name not in used),
        serve=not runtime.deleting,
        delete_daemon_set=runtime.deleting and not mine,
        finished=runtime.deleting and _nothing_left(runtime.name, mine, seen),
    )


def _selected(runtime: RuntimeView, seen: Observation) -> frozenset[str]:
    """Return the nodes that the selector matches."""
    return frozenset(name for name, node in seen.nodes.items() if matches(runtime.spec.selector, node.labels))


def _conflicts(runtime: str, selected: Iterable[str], seen: Observation) -> dict[str, str]:
    """Return the selected nodes that another NodeRuntime has, and its name. First come, first served."""
    found = {}
    for name in sorted(selected):
        instance = seen.instances.get(name)
        holder = instance.spec.runtime_name if instance else seen.nodes[name].claimed_by
        if holder not in (None, runtime):
            found[name] = str(holder)
    return found


def _leaving_handlers(runtime: RuntimeView, mine: Mapping[str, InstanceView]) -> dict[str, InstanceHandler]:
    """Return the handlers that nodes still have to offer but the spec no longer names."""
    wanted = {handler.name for handler in runtime.spec.handlers}
    offered = {handler.name: handler for instance in mine.values() for handler in instance.spec.handlers}
    return {name: handler for name, handler in offered.items() if name not in wanted}


def _leaving_classes(runtime: RuntimeView, seen: Observation) -> list[str]:
    """Return our RuntimeClasses that the spec no longer asks for."""
    wanted = set() if runtime.deleting else {(h.runtime_class, h.name) for h in runtime.spec.handlers}
    return [
        known.name
        for known in seen.runtime_classes.values()
        if known.owner == runtime.name and (known.name, known.handler) not in wanted
    ]


def _foreign_classes(runtime: RuntimeView, seen: Observation) -> tuple[str, ...]:
    """Return the wanted RuntimeClasses that somebody else made. They are left as they are."""
    if runtime.deleting:
        return ()
    known = (seen.runtime_classes.get(handler.runtime_class) for handler in runtime.spec.handlers)
    return tuple(found.name for found in known if found and found.owner != runtime.name)


def _retained(
    runtime: RuntimeView, mine: Mapping[str, InstanceView], seen: Observation
) -> tuple[list[InstanceHandler], list[PodView]]:
    """Return the leaving handlers that pods still use, and the pods that use them or a leaving class."""
    leaving = _leaving_handlers(runtime, mine)
    classes = set(_leaving_classes(runtime, seen))
    by_handler = seen.pods_on(mine, leaving)
    by_class = [pod for pod in seen.pods if pod.node in mine and pod.runtime_class in classes]
    used = {seen.handler_of(pod.runtime_class) for pod in by_handler}
    return [leaving[name] for name in sorted(used)], sorted({*by_handler, *by_class}, key=str)


def _wanted(
    runtime: RuntimeView, nodes: Iterable[str], retained: Iterable[InstanceHandler]
) -> dict[str, InstanceSpec]:
    """Return the orders to the nodes that this NodeRuntime serves."""
    order = instance_spec("any", runtime.name, runtime.spec, retained)
    return {name: order.model_copy(update={"node_name": name}) for name in nodes}


def _removals(
    mine: Mapping[str, InstanceView], leaving: Iterable[str], seen: Observation
) -> dict[str, InstanceSpec]:
    """Return the orders to the nodes that leave, once the scheduler brings them no more pods of ours."""
    return {
        name: mine[name].spec.model_copy(update={"state": "Removed"})
        for name in leaving
        if not seen.nodes[name].handler_labels
    }


def _within_budget(
    runtime: RuntimeView,
    wanted: Mapping[str, InstanceSpec],
    mine: Mapping[str, InstanceView],
    seen: Observation,
) -> tuple[dict[str, InstanceSpec], dict[str, InstanceSpec], frozenset[str]]:
    """Split the instances to write into (create, update, waiting).

    Nodes that already move are free to be told anew. Among the others those that are Ready go first,
    and a node that is not Ready is not started at all: it may be gone for good.
    """
    changed = {name for name, spec in wanted.items() if name not in mine or mine[name].spec != spec}
    moving = {name for name, instance in mine.items() if instance.moving}
    budget = max(0, runtime.spec.update_strategy.max_unavailable - len(moving))
    queue = sorted(
        (not seen.nodes[name].ready, name)
        for name in changed - moving
        if name in mine or seen.nodes[name].ready
    )
    go = (changed & moving) | {name for _, name in queue[:budget]}
    return (
        {name: wanted[name] for name in sorted(go - mine.keys())},
        {name: wanted[name] for name in sorted(go & mine.keys())},
        frozenset(changed - go),
    )


def _staying_labels(
    instances: Mapping[str, InstanceView], seen: Observation, handlers: Iterable[str]
) -> dict[str, dict[str, str | None]]:
    """Return the label changes of nodes that stay: claimed, and one label for each handler once proven.

    A proven handler keeps its label through failures: a restarted kubelet admits running pods
    anew against it, and would reject them.
    """
    allowed = set(handlers)
    changes = {}
    for name, instance in instances.items():
        node = seen.nodes[name]
        proven = {status.name for status in instance.status.handlers or () if status.state == "Ready"}
        change = _label_change(node, (node.handler_labels | proven) & allowed)
        if node.claimed_by != instance.spec.runtime_name:
            change[OWNER_LABEL] = instance.spec.runtime_name
        if change:
            changes[name] = change
    return changes


def _leaving_labels(
    mine: Mapping[str, InstanceView], leaving: Iterable[str], seen: Observation
) -> dict[str, dict[str, str | None]]:
    """Return the label changes of nodes that leave: the handlers' first, the claim when the agent is done."""
    changes = {}
    for name in leaving:
        change = _label_change(seen.nodes[name], frozenset())
        if mine[name].removed and seen.nodes[name].claimed_by == mine[name].spec.runtime_name:
            change[OWNER_LABEL] = None
        if change:
            changes[name] = change
    return changes


def _stale_labels(
    runtime: str, selected: Iterable[str], seen: Observation
) -> dict[str, dict[str, str | None]]:
    """Return the label changes of nodes that carry our claim, but no instance stands behind it."""
    return {
        name: {**_label_change(node, frozenset()), OWNER_LABEL: None}
        for name, node in seen.nodes.items()
        if node.claimed_by == runtime and name not in seen.instances and name not in selected
    }


def _label_change(node: NodeView, handlers: frozenset[str]) -> dict[str, str | None]:
    """Return what turns the node's handler labels into these."""
    off: dict[str, str | None] = {
        HANDLER_LABEL_PREFIX + name: None for name in node.handler_labels - handlers
    }
    return off | {HANDLER_LABEL_PREFIX + name: "true" for name in handlers - node.handler_labels}


def _nothing_left(runtime: str, mine: Mapping[str, InstanceView], seen: Observation) -> bool:
    """Say whether no node, instance, class or agent of this NodeRuntime is left."""
    return not (
        mine
        or daemon_set_name(runtime) in seen.daemon_sets
        or any(known.owner == runtime for known in seen.runtime_classes.values())
        or any(node.claimed_by == runtime for node in seen.nodes.values())
    )
