"""Compute the Plan of a NodeRuntime. Pure: from a NodeRuntime and a ClusterState."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from noderuntime_operator.api.instance import InstanceHandler, InstanceSpec
from noderuntime_operator.api.status import FailedRevision
from noderuntime_operator.cluster_state import (
    FAILED,
    ClusterState,
    InstanceView,
    PodView,
    RuntimeView,
    number_of,
    template_of,
)
from noderuntime_operator.desired import daemon_set_name, instance_spec
from noderuntime_operator.rollout import agents, classes, members, takeover
from noderuntime_operator.rollout.labels import leaving_labels, orphan_labels, staying_labels
from noderuntime_operator.rollout.plans import Plan
from noderuntime_operator.rollout.revisions import Choice, choose, to_forget, to_store
from noderuntime_operator.rollout.waves import Nodes, Rollout, classify, is_stopped, roll_out


def nodes_to_search(runtime: RuntimeView, cluster: ClusterState) -> frozenset[str]:
    """Return the nodes whose pods must be listed, because something must be removed there."""
    revision = choose(runtime, cluster).target.revision
    mine = members.instances_of(runtime, cluster, revision)
    leaving = classes.leaving_classes(runtime, revision.handlers, cluster)
    vacated = takeover.vacated_nodes(runtime, cluster)
    if runtime.deleting or leaving or members.leaving_handlers(revision, mine):
        return frozenset(mine) | vacated
    deselected = mine.keys() - members.selected_nodes(runtime, cluster)
    return vacated | deselected | members.changing_mode(revision, mine)


def owners_in_question(runtime: RuntimeView, cluster: ClusterState) -> frozenset[str]:
    """Return the other NodeRuntimes whose nodes or RuntimeClasses are taken over if they do not exist."""
    return takeover.other_owners(runtime, choose(runtime, cluster).target.revision.handlers, cluster)


def plan(runtime: RuntimeView, cluster: ClusterState) -> Plan:
    """Return the Plan for one NodeRuntime."""
    choice = choose(runtime, cluster)
    mine = members.instances_of(runtime, cluster, choice.target.revision)
    return (
        _removal(runtime, cluster, choice, mine)
        if runtime.deleting
        else _service(runtime, cluster, choice, mine)
    )


def _removal(
    runtime: RuntimeView, cluster: ClusterState, choice: Choice, mine: Mapping[str, InstanceView]
) -> Plan:
    """Return the Plan of a NodeRuntime that is being deleted.

    Pods hold the deletion, those on a node that is off only hold their node.
    """
    orphans = members.orphans_of(runtime, mine, cluster)
    revision = choice.target.revision
    offered = {h.name for h in revision.handlers} | members.leaving_handlers(revision, mine).keys()
    pods = cluster.pods_on(mine.keys() - orphans, offered)
    leaving_classes = classes.leaving_classes(runtime, revision.handlers, cluster)
    common = Plan(
        choice.target,
        choice.desired,
        failed_revision=choice.failed,
        instances=mine,
        class_labels=classes.class_labels(runtime, leaving_classes, cluster),
        other_agents=cluster.other_agents,
        replace=agents.replaced_for_removal(mine, revision.image, cluster),
    )
    if any(cluster.nodes[pod.node].ready for pod in pods):
        staying = {name: found for name, found in mine.items() if found.spec.state == "Installed"}
        labels = staying_labels(staying, cluster, offered)
        return replace(common, selected=frozenset(mine), holding=tuple(pods), labels=labels)
    leaving = mine.keys() - orphans - {pod.node for pod in pods}
    update, waiting, _ = _removals(runtime, mine, leaving, cluster)
    labels = leaving_labels(mine, leaving, cluster) | orphan_labels(runtime.name, orphans, cluster)
    finished = _nothing_left(runtime.name, cluster)
    ended = [name for name in orphans if not mine[name].lost]
    ended += members.outlived(runtime, cluster)
    return replace(
        common,
        orphaned=orphans,
        update=update,
        waiting=waiting,
        labels=labels,
        delete_instances=_ended(runtime, mine, leaving, cluster) + tuple(sorted(ended)),
        delete_classes=() if pods else tuple(leaving_classes),
        abandon=agents.abandoned(runtime.name, cluster),
        serve=False,
        delete_daemon_set=not _has_instances(runtime.name, cluster),
        forget=tuple(cluster.revisions) if finished else (),
        finished=finished,
    )


def _service(
    runtime: RuntimeView, cluster: ClusterState, choice: Choice, mine: Mapping[str, InstanceView]
) -> Plan:
    """Return the Plan of a NodeRuntime that serves its nodes."""
    revision = choice.target.revision
    leaving_handlers = members.leaving_handlers(revision, mine)
    pods = cluster.pods_on(mine, {h.name for h in revision.handlers} | leaving_handlers.keys())
    with_pods = {pod.node for pod in pods}
    selected = members.selected_nodes(runtime, cluster)
    held = with_pods - selected
    leaving = mine.keys() - selected - held
    leaving_classes = classes.leaving_classes(runtime, revision.handlers, cluster)
    retained, kept_pods = _retained(leaving_handlers, leaving_classes, mine, cluster)
    claimed = members.conflicts_of(runtime.name, selected, cluster)
    taken = takeover.take_over(claimed, revision.handlers, cluster)
    conflicts = {name: owner for name, owner in claimed.items() if name not in taken.free}
    changing_mode = members.changing_mode(revision, mine) & (selected - conflicts.keys())
    mode_held = changing_mode & with_pods
    wanted = _Wanted(instance_spec("any", runtime.name, revision, retained), mine, mode_held)
    removals, removals_waiting, removing = _removals(runtime, mine, leaving, cluster)
    outlived = members.outlived(runtime, cluster)
    served = selected - conflicts.keys() - outlived
    nodes = classify(wanted.templates(served), cluster)
    rollout = roll_out(runtime, cluster, nodes, choice, removing + len(removals))
    retried = _retried(runtime, nodes, mine)
    chosen = sorted(rollout.take | retried)
    changing_mode &= rollout.take - mode_held
    closing = frozenset(name for name in changing_mode if cluster.nodes[name].handler_labels)
    staying = {name: instance for name, instance in mine.items() if name not in leaving | changing_mode}
    offers = {h.name for h in revision.handlers} | {h.name for h in retained}
    labels = staying_labels(staying, cluster, offers)
    used = {pod.runtime_class for pod in kept_pods}
    return Plan(
        choice.target,
        choice.desired,
        target_problem=choice.problem,
        failed_revision=_failed(runtime, cluster, choice, nodes, rollout),
        store=to_store(choice, cluster),
        forget=to_forget(runtime, choice, cluster),
        selected=selected,
        instances=mine,
        conflicts=conflicts,
        holding_takeover=taken.pods,
        foreign_classes=classes.foreign_classes(runtime, revision.handlers, cluster),
        unbound_classes=classes.unbound_classes(revision.handlers, cluster),
        holding=tuple(pod for pod in pods if pod.node in held | mode_held or pod in kept_pods),
        mode_held=mode_held,
        closing=closing,
        create={name: wanted.spec(name) for name in chosen if name not in mine},
        update={name: wanted.spec(name) for name in chosen if name in mine and name not in closing}
        | removals,
        failed_before=_failed_before(rollout, retried, mine),
        waiting=rollout.waiting | removals_waiting,
        wave=rollout.wave,
        outside=nodes.outside,
        late=nodes.late,
        other_agents=cluster.other_agents,
        replace=agents.replaced(mine, revision.image, cluster),
        labels=labels | leaving_labels(mine, leaving | closing, cluster) | taken.labels,
        delete_instances=_ended(runtime, mine, leaving, cluster) + tuple(sorted(outlived)) + taken.delete,
        class_labels=classes.class_labels(runtime, leaving_classes, cluster),
        delete_classes=tuple(name for name in leaving_classes if name not in used),
    )


class _Wanted:
    """What the target gives to each node; a node that is held keeps its kubelet.mode."""

    def __init__(
        self, template: InstanceSpec, mine: Mapping[str, InstanceView], mode_held: frozenset[str]
    ) -> None:
        self._template = template
        self._held = {name: _with_mode_of(mine[name], template) for name in mode_held}

    def templates(self, names: Iterable[str]) -> dict[str, str]:
        """Return the comparable form of what each node is given."""
        held = {name: template_of(spec) for name, spec in self._held.items()}
        return dict.fromkeys(sorted(names), template_of(self._template)) | held

    def spec(self, name: str) -> InstanceSpec:
        """Return what a node is given."""
        return self._held.get(name, self._template).model_copy(update={"node_name": name})


def _with_mode_of(instance: InstanceView, wanted: InstanceSpec) -> InstanceSpec:
    """Return the desired state with the kubelet.mode that the node has."""
    kubelet = wanted.kubelet.model_copy(update={"mode": instance.spec.kubelet.mode})
    return wanted.model_copy(update={"kubelet": kubelet})


def _retained(
    leaving: Mapping[str, InstanceHandler],
    leaving_classes: Iterable[str],
    mine: Mapping[str, InstanceView],
    cluster: ClusterState,
) -> tuple[list[InstanceHandler], list[PodView]]:
    """Return the leaving handlers that pods still use, and the pods of leaving handlers and classes."""
    names = set(leaving_classes)
    by_handler = cluster.pods_on(mine, leaving)
    by_class = [pod for pod in cluster.pods if pod.node in mine and pod.runtime_class in names]
    used = {cluster.handler_of(pod.runtime_class) for pod in by_handler}
    return [leaving[name] for name in sorted(used)], sorted({*by_handler, *by_class}, key=str)


def _removals(
    runtime: RuntimeView, mine: Mapping[str, InstanceView], leaving: Iterable[str], cluster: ClusterState
) -> tuple[dict[str, InstanceSpec], frozenset[str], int]:
    """Return the leaving nodes that noderuntime is removed from now, those that wait, and how many change.

    A node must have no handler labels for the scheduler. One that is changing already can be removed at
    once. One that is off is not counted: its agent has not read the change. The others come after it.
    """
    moving = {name for name in leaving if mine[name].moving}
    off = {name for name in moving if not cluster.nodes[name].ready and not mine[name].observed}
    todo = {n for n in leaving if mine[n].spec.state != "Removed" and not cluster.nodes[n].handler_labels}
    most = max(1, number_of(runtime.spec.update.max_unavailable, len(mine)))
    queue = sorted(todo - moving, key=lambda name: (not cluster.nodes[name].ready, name))
    chosen = (todo & moving) | set(queue[: max(0, most - len(moving - off))])
    written = {name: mine[name].spec.model_copy(update={"state": "Removed"}) for name in sorted(chosen)}
    return written, frozenset(todo - chosen), len(moving - off - chosen)


def _ended(
    runtime: RuntimeView, mine: Mapping[str, InstanceView], leaving: Iterable[str], cluster: ClusterState
) -> tuple[str, ...]:
    """Return the nodes that noderuntime was removed from and that are not claimed any more."""
    return tuple(
        sorted(
            name for name in leaving if mine[name].removed and cluster.nodes[name].claimed_by != runtime.name
        )
    )


def _retried(runtime: RuntimeView, nodes: Nodes, mine: Mapping[str, InstanceView]) -> frozenset[str]:
    """Return the failed nodes whose agents must learn that a user asks for another attempt."""
    failed = (*nodes.failed, *nodes.excused) if runtime.retry else ()
    return frozenset(name for name in failed if mine[name].retry != runtime.retry)


def _failed_before(
    rollout: Rollout, retried: frozenset[str], mine: Mapping[str, InstanceView]
) -> frozenset[str]:
    """Return the nodes whose change is not the cause of their failure."""
    taken = {name for name in rollout.take if name in mine and mine[name].status.phase in FAILED}
    return frozenset(taken | {name for name in retried if mine[name].failed_before})


def _failed(
    runtime: RuntimeView, cluster: ClusterState, choice: Choice, nodes: Nodes, rollout: Rollout
) -> FailedRevision | None:
    """Return the desired revision if it failed, now or before, and another can take its place."""
    target, good = choice.target.name, runtime.status.current_revision
    is_new = target == choice.desired and is_stopped(runtime, nodes, target)
    if not is_new or good not in cluster.revisions or runtime.spec.update.rollback == "Never":
        return choice.failed
    causes = (f"{name}: {nodes.late.get(name) or _cause(cluster.instances[name])}" for name in nodes.failed)
    message = f"{rollout.wave.waiting_for}; {'; '.join(list(causes)[:3])}"
    return FailedRevision(revision=target, message=message[:1024], retry=runtime.retry)


def _cause(instance: InstanceView) -> str:
    return ": ".join(instance.failure)


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
        or cluster.other_agents
        or any(known.owner == runtime for known in cluster.runtime_classes.values())
    )
