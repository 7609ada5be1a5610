"""Which nodes get the target revision now: first canaries, then the others within the budget.

A node is in one of these states; each is derived from the cluster's state, none is stored:

    pending ──► moving ──► done        the agent applied the revision, and the node is Ready
       ▲           └─────► failed      the node is Failed or Degraded, or too late
       │                   (excused:   it had failed before it was given the revision)
    outside: the node is off, cordoned or skipped, and its agent has not applied the revision

``moving`` nodes are the budget, maxUnavailable. Failed nodes are counted against maxFailures instead, so
that a broken node does not hold up the others. ``between`` is a node that moves to an older revision: it
is unavailable already, so it is given the target first and without regard to the budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from noderuntime_operator.api.noderuntime import Canary
from noderuntime_operator.api.status import Wave
from noderuntime_operator.cluster_state import (
    FAILED,
    ClusterState,
    InstanceView,
    Outside,
    RuntimeView,
    limit_of,
    matches,
    number_of,
)
from noderuntime_operator.rollout.revisions import Choice
from noderuntime_operator.texts import RETRIED, listed, timestamp

CHANGES_WITHIN = timedelta(minutes=10)
"""Time from the operator's change of an instance to the end of the node's, without the switch's timeout."""
PULLS_WITHIN = timedelta(minutes=2)
"""Time after which an image that cannot be pulled is a failure of the revision."""


@dataclass
class Nodes:
    """The nodes of a rollout by state."""

    done: list[str] = field(default_factory=list)
    moving: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    between: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    outside: dict[str, Outside] = field(default_factory=dict)
    not_given: list[str] = field(default_factory=list)
    """Nodes outside that were not given the target."""
    given: int = 0
    """Nodes that were given the target."""
    late: dict[str, str] = field(default_factory=dict)
    """Nodes that are too late, and a message."""

    @property
    def total(self) -> int:
        """The number of nodes that the rollout concerns."""
        return self.given + len(self.between) + len(self.pending) + len(self.not_given)


@dataclass(frozen=True)
class Rollout:
    """What a reconciliation does for a rollout: the nodes that change now, and its progress."""

    nodes: Nodes
    take: frozenset[str]
    wave: Wave

    @property
    def waiting(self) -> frozenset[str]:
        """The nodes that must change, but not now."""
        nodes = self.nodes
        return frozenset({*nodes.pending, *nodes.between, *nodes.not_given}) - self.take


def classify(templates: Mapping[str, str], cluster: ClusterState) -> Nodes:
    """Return the nodes by state. templates are what the target gives to each node."""
    nodes = Nodes()
    pulls = {pull.node for pull in cluster.image_pulls}
    for name, template in templates.items():
        node, instance = cluster.nodes[name], cluster.instances.get(name)
        if instance is None or instance.template != template or instance.spec.state != "Installed":
            if node.outside:
                nodes.outside[name] = node.outside
                nodes.not_given.append(name)
            else:
                is_between = instance is not None and _is_between(instance, cluster)
                (nodes.between if is_between else nodes.pending).append(name)
            continue
        nodes.given += 1
        _classify_given(nodes, instance, cluster, pulls)
    return nodes


def _is_between(instance: InstanceView, cluster: ClusterState) -> bool:
    """Return whether a node is moving to another revision, and not too late."""
    return instance.spec.state == "Installed" and instance.moving and not _lateness(instance, cluster)


def _classify_given(nodes: Nodes, instance: InstanceView, cluster: ClusterState, pulls: set[str]) -> None:
    """Sort in a node that was given the target."""
    name, node = instance.name, cluster.nodes[instance.name]
    if node.outside and (not instance.observed or (not node.ready and instance.status.phase == "Ready")):
        nodes.outside[name] = node.outside
    elif instance.observed and instance.status.phase == "Ready":
        nodes.done.append(name)
    elif late := _lateness(instance, cluster, pull_failed=name in pulls):
        nodes.late[name] = late
        (nodes.excused if instance.failed_before else nodes.failed).append(name)
    elif instance.observed and instance.status.phase in FAILED:
        (nodes.excused if instance.failed_before else nodes.failed).append(name)
    else:
        nodes.moving.append(name)


def _lateness(instance: InstanceView, cluster: ClusterState, *, pull_failed: bool = False) -> str:
    """Return why a node that still changes is too late, or an empty string.

    If the node was off before its agent read the change, the time begins at its return. An outage does not
    count.
    """
    if instance.taken is None or not instance.moving:
        return ""
    returned = None if instance.observed else cluster.nodes[instance.name].since
    began = max(instance.taken, returned or instance.taken)
    age = cluster.now - began - _outage_since(began, cluster)
    if pull_failed and age > PULLS_WITHIN:
        return f"the image {instance.spec.image} of the agent cannot be pulled"
    if age > CHANGES_WITHIN + timedelta(seconds=instance.spec.kubelet.switch_timeout_seconds):
        return f"the node did not finish its change within {age.total_seconds() / 60:.0f} minutes"
    return ""


def _outage_since(time: datetime, cluster: ClusterState) -> timedelta:
    """Return for how long the API server was away since a time."""
    if cluster.outage is None:
        return timedelta()
    began, ended = cluster.outage
    return max(timedelta(), ended - max(time, began))


def roll_out(
    runtime: RuntimeView, cluster: ClusterState, nodes: Nodes, choice: Choice, leaving: int
) -> Rollout:
    """Return which nodes change now. leaving is the number of nodes that are being cleaned up."""
    update, target = runtime.spec.update, choice.target.name
    most = max(1, number_of(update.max_unavailable, nodes.total))
    budget = max(0, most - len(nodes.moving) - len(nodes.between) - leaving)
    since = _soaking_since(runtime, target)
    remaining = bool(nodes.pending or nodes.between)
    if why := _why_stopped(runtime, nodes, choice):
        return _rollout(nodes, "Stopped", why, since)
    if not remaining and not nodes.moving:
        return _rollout(nodes, "Complete", "", since)
    if update.paused and remaining:
        return _rollout(nodes, "Paused", "spec.update.paused to be false", since)
    joining = _joining(runtime, cluster, nodes.between)
    new = [*joining, *_joining(runtime, cluster, nodes.pending)[:budget]]
    budget -= len(new) - len(joining)
    canaries = _Canaries.of(runtime, cluster, nodes, target)
    if canaries and not canaries.soaked(since, cluster.now):
        if canaries.are_ready:
            since = since or cluster.now
            if until := canaries.soaking_until(since, cluster.now):
                text = f"the canaries' soak time until {timestamp(until)}"
                return _rollout(nodes, "Soaking", text, since, new)
        else:
            free = [name for name in canaries.next if name in nodes.between]
            others = [name for name in canaries.next if name not in nodes.between]
            take = [*new, *free, *others[:budget]]
            return _rollout(nodes, "Canary", canaries.text(take), None, take)
    rest = [name for name in _by_urgency(cluster, nodes.pending) if name not in new]
    take = [*nodes.between, *new, *rest[:budget]]
    names = listed(sorted({*nodes.moving, *take}))
    return _rollout(nodes, "Rolling", f"nodes: {names}", since, take)


def _why_stopped(runtime: RuntimeView, nodes: Nodes, choice: Choice) -> str:
    """Return why no more nodes change, or an empty string."""
    if is_stopped(runtime, nodes, choice.target.name):
        limit = limit_of(runtime.spec.update.max_failures, nodes.total)
        names = listed(sorted(nodes.failed))
        return f"{len(nodes.failed)} nodes failed, and update.maxFailures allows {limit}: {names}"
    if choice.failed and choice.failed.revision == choice.target.name:
        return f"the revision failed before; {RETRIED}"  # and no other can take its place
    return ""


def is_stopped(runtime: RuntimeView, nodes: Nodes, target: str) -> bool:
    """Return whether a new revision failed on too many nodes."""
    limit = limit_of(runtime.spec.update.max_failures, nodes.total)
    return target != runtime.status.current_revision and len(nodes.failed) > limit


def _rollout(
    nodes: Nodes, phase: str, waiting_for: str, since: datetime | None, take: Iterable[str] = ()
) -> Rollout:
    taken = frozenset(take)
    wave = Wave.model_validate(
        {
            "phase": phase,
            "nodes": nodes.total,
            "updated": nodes.given + len(taken),
            "ready": len(nodes.done),
            "failed": len(nodes.failed),
            "outside": len(nodes.outside),
            "waiting_for": waiting_for[:1024],
            "soaking_since": timestamp(since) if since else None,
        }
    )
    return Rollout(nodes, taken, wave)


def _soaking_since(runtime: RuntimeView, target: str) -> datetime | None:
    """Return when the canaries of this target were Ready, if they were."""
    wave = runtime.status.wave
    if wave is None or wave.soaking_since is None or runtime.status.update_revision != target:
        return None
    return datetime.fromisoformat(wave.soaking_since)


def _joining(runtime: RuntimeView, cluster: ClusterState, names: Iterable[str]) -> list[str]:
    """Return the nodes that joined after the first installation: they do not wait for canaries.

    noderuntime has never served on them.
    """
    if runtime.status.current_revision is None:
        return []
    instances = ((name, cluster.instances.get(name)) for name in names)
    return sorted(n for n, found in instances if found is None or found.status.runtime_version is None)


def _by_urgency(cluster: ClusterState, names: Iterable[str]) -> list[str]:
    """Return nodes in the order in which they change: failed ones first, then by name."""
    return sorted(names, key=lambda name: (not _has_failed(cluster, name), name))


def _has_failed(cluster: ClusterState, name: str) -> bool:
    instance = cluster.instances.get(name)
    return instance is not None and instance.status.phase in FAILED


@dataclass(frozen=True)
class _Canaries:
    """The first wave of a new revision."""

    soak: timedelta
    are_ready: bool
    next: list[str]
    """Canaries that were not given the revision yet."""
    moving: list[str]
    by_selector: bool

    @classmethod
    def of(cls, runtime: RuntimeView, cluster: ClusterState, nodes: Nodes, target: str) -> _Canaries | None:
        """Return the canaries of a rollout, or None if it needs none: it goes back to an earlier revision."""
        canary, status = runtime.spec.update.canary, runtime.status
        if canary is None or target == status.current_revision or runtime.rollback_to:
            return None
        soak = timedelta(seconds=canary.soak_seconds)
        candidates = [*nodes.between, *nodes.pending]
        healthy = [name for name in candidates if not _has_failed(cluster, name)]
        if canary.selector is not None:
            return cls._selected(canary, soak, cluster, nodes, healthy)
        wanted = number_of(canary.nodes or 1, nodes.total)
        wanted = min(wanted, len(nodes.done) + len(nodes.moving) + len(healthy))
        ready = bool(nodes.done) and len(nodes.done) >= wanted
        missing = max(0, wanted - len(nodes.done) - len(nodes.moving))
        return cls(soak, ready, healthy[:missing], nodes.moving, by_selector=False)

    @classmethod
    def _selected(
        cls, canary: Canary, soak: timedelta, cluster: ClusterState, nodes: Nodes, healthy: list[str]
    ) -> _Canaries:
        def of(names: list[str]) -> list[str]:
            chosen = canary.selector
            return [name for name in names if chosen and matches(chosen, cluster.nodes[name].labels)]

        moving, missing = of(nodes.moving), of(healthy)
        ready = not moving and not missing and bool(of(nodes.done))
        return cls(soak, ready, missing, moving, by_selector=True)

    def soaked(self, since: datetime | None, now: datetime) -> bool:
        """Return whether the soak time has passed."""
        return since is not None and now >= since + self.soak

    def soaking_until(self, since: datetime, now: datetime) -> datetime | None:
        """Return the end of the soak time, or None if it has passed."""
        return None if self.soaked(since, now) else since + self.soak

    def text(self, taken: list[str]) -> str:
        """Return what the wave waits for."""
        names = sorted({*self.moving, *taken})
        if names:
            return f"canaries: {listed(names)}"
        if self.next:
            return f"canaries, which wait for maxUnavailable: {listed(self.next)}"
        what = "that update.canary.selector matches" if self.by_selector else "to be the canary"
        return f"a Ready node {what}"
