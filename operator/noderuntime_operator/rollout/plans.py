"""What one reconciliation changes, and the obstacles that it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from noderuntime_operator.api.instance import InstanceSpec
from noderuntime_operator.api.revision import Handler
from noderuntime_operator.api.status import FailedRevision, Wave
from noderuntime_operator.cluster_state import (
    AgentPodView,
    InstanceView,
    OtherAgentsView,
    Outside,
    PodView,
    RevisionView,
)

NO_WAVE = Wave(phase="Complete", nodes=0, updated=0, ready=0, failed=0, outside=0)


@dataclass(frozen=True)
class Plan:
    """The changes that one reconciliation makes, and the obstacles it found."""

    target: RevisionView
    """The revision that nodes get now."""
    desired: str
    """The revision that the spec and the agents' image make."""
    target_problem: str = ""
    """Why a requested revision is not the target."""
    failed_revision: FailedRevision | None = None
    """The desired revision, if it failed: it is not tried again."""
    store: RevisionView | None = None
    """A revision to store, before a node gets it."""
    forget: tuple[str, ...] = ()
    """Stored revisions that are not needed any more."""
    selected: frozenset[str] = frozenset()
    instances: Mapping[str, InstanceView] = field(default_factory=dict)
    """The instances of the NodeRuntime by node, the lost ones included."""
    conflicts: Mapping[str, str] = field(default_factory=dict)
    """Selected nodes that belong to another NodeRuntime, and its name."""
    holding_takeover: tuple[PodView, ...] = ()
    """Pods on such nodes that must end before the nodes can be taken from NodeRuntimes that do not exist."""
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
    orphaned: frozenset[str] = frozenset()
    """Unreachable nodes that no longer hold the deletion."""
    create: Mapping[str, InstanceSpec] = field(default_factory=dict)
    update: Mapping[str, InstanceSpec] = field(default_factory=dict)
    failed_before: frozenset[str] = frozenset()
    """Nodes to update that have failed already: the change is not the cause."""
    waiting: frozenset[str] = frozenset()
    """Nodes that must change, but not now."""
    wave: Wave = NO_WAVE
    outside: Mapping[str, Outside] = field(default_factory=dict)
    """Nodes that the rollout leaves out for now, and why."""
    late: Mapping[str, str] = field(default_factory=dict)
    """Nodes that do not reach the target in time, and a message."""
    replace: tuple[AgentPodView, ...] = ()
    """Agents' pods to delete: the DaemonSet creates them again from its template."""
    abandon: tuple[AgentPodView, ...] = ()
    """Agents' pods on orphaned nodes, which no kubelet can end."""
    other_agents: tuple[OtherAgentsView, ...] = ()
    """DaemonSets of another release to delete."""
    labels: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    delete_instances: tuple[str, ...] = ()
    class_labels: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    """RuntimeClasses to close for new pods, or to open again."""
    delete_classes: tuple[str, ...] = ()
    serve: bool = True
    """Whether the RuntimeClasses must exist."""
    delete_daemon_set: bool = False
    """Whether no node needs an agent any more."""
    finished: bool = False
    """Whether nothing of this NodeRuntime is left, so the finalizer can be removed."""

    @property
    def handlers(self) -> list[Handler]:
        """The handlers that need a RuntimeClass."""
        return self.target.revision.handlers
