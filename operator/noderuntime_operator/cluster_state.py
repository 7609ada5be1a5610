"""The state of the cluster as frozen views, which hold only the fields that decisions need.

The operator holds thousands of nodes in memory, so a view keeps no reference to the object it was built from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from noderuntime_operator.api import (
    HANDLER_LABEL_PREFIX,
    OWNER_LABEL,
    InstanceSpec,
    InstanceStatus,
    LabelSelector,
    NodeRuntimeSpec,
    NodeRuntimeStatus,
    SelectorRequirement,
)

SETTLED = frozenset({"Ready", "Degraded"})
"""Phases in which an agent has finished: a broken handler does not block the rollout to other nodes."""


KNOWN = SETTLED | {"Failed"}
"""Phases in which an agent's report is about the node's present state."""


@dataclass(frozen=True)
class RuntimeView:
    """One NodeRuntime."""

    name: str
    uid: str
    resource_version: str
    generation: int
    deleting: bool
    finalizers: tuple[str, ...]
    spec: NodeRuntimeSpec
    status: NodeRuntimeStatus


@dataclass(frozen=True)
class NodeView:
    """One Node: its labels, its Ready condition and since when the condition has its value."""

    name: str
    uid: str
    labels: Mapping[str, str]
    ready: bool
    since: datetime | None = None
    resource_version: str = field(default="", compare=False)

    @property
    def claimed_by(self) -> str | None:
        """The NodeRuntime named by the node's label, or None."""
        return self.labels.get(OWNER_LABEL)

    @property
    def handler_labels(self) -> frozenset[str]:
        """The handlers that the node's labels offer to the scheduler."""
        return frozenset(
            key.removeprefix(HANDLER_LABEL_PREFIX)
            for key in self.labels
            if key.startswith(HANDLER_LABEL_PREFIX)
        )


@dataclass(frozen=True)
class InstanceView:
    """One NodeRuntimeInstance."""

    name: str
    generation: int
    created: datetime
    spec: InstanceSpec
    status: InstanceStatus
    restored: bool = False
    """Whether the instance replaces one that was deleted without the operator, for example with its CRD."""
    uid: str = field(default="", compare=False)
    resource_version: str = field(default="", compare=False)
    heartbeat: datetime | None = field(default=None, compare=False)
    """The agent's last sign of life. It comes every few minutes, so no reconciliation follows from it."""

    @property
    def lost(self) -> bool:
        """Whether the API server has no such instance, although the node is claimed."""
        return self.generation == 0

    @property
    def observed(self) -> bool:
        """Whether the agent has applied the newest spec."""
        return self.status.observed_generation == self.generation

    @property
    def moving(self) -> bool:
        """Whether the node is changing or has failed to: it counts against maxUnavailable."""
        done = {"Removed"} if self.spec.state == "Removed" else SETTLED
        return not self.observed or self.status.phase not in done

    @property
    def kubelet_elsewhere(self) -> bool:
        """Whether the agent reports that the node's kubelet uses another runtime.

        While a node installs or switches, the report can be about an earlier state, so it is not used.
        """
        kubelet = self.status.kubelet
        return self.status.phase in KNOWN and kubelet is not None and kubelet.state == "Upstream"

    @property
    def removed(self) -> bool:
        """Whether noderuntime is removed from the node, or was never installed there."""
        if self.spec.state != "Removed":
            return False
        never_ran = self.status.phase is None and not self.restored
        return never_ran or (self.observed and self.status.phase == "Removed")


@dataclass(frozen=True)
class RuntimeClassView:
    """One RuntimeClass of the cluster; owner is the NodeRuntime that it belongs to, if any."""

    name: str
    handler: str
    owner: str | None
    uid: str = ""
    node_selector: frozenset[str] = frozenset()
    """The keys of scheduling.nodeSelector."""
    removing: bool = False
    """Whether new pods of the class are rejected."""
    resource_version: str = ""

    @property
    def is_unbound(self) -> bool:
        """Whether the class belongs to no NodeRuntime and selects nodes without regard to its handler.

        Its pods run in noderuntime on some nodes and in another runtime on the others.
        """
        return self.owner is None and HANDLER_LABEL_PREFIX + self.handler not in self.node_selector


@dataclass(frozen=True)
class DaemonSetView:
    """The DaemonSet of one NodeRuntime's agents."""

    name: str
    owner: str
    unavailable: int = 0
    """Nodes on which the agent's pod should run and is not Ready."""
    uid: str = ""
    generation: int = 0
    resource_version: str = field(default="", compare=False)


@dataclass(frozen=True)
class ImagePullView:
    """An agent's pod whose image the kubelet cannot pull: the kubelet's reason and message."""

    runtime: str
    node: str
    image: str
    reason: str
    message: str


@dataclass(frozen=True)
class PodView:
    """A pod with a RuntimeClass that is bound to a node and has not finished."""

    namespace: str
    name: str
    node: str
    runtime_class: str
    owner: str = ""
    """Kind and name of the controller that would create the pod again, if any."""
    resource_version: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" + (f" (of {self.owner})" if self.owner else "")


@dataclass(frozen=True)
class ClusterState:
    """The cluster as one reconciliation observes it. Pods are listed only if something must be removed."""

    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    instances: Mapping[str, InstanceView] = field(default_factory=dict)
    runtime_classes: Mapping[str, RuntimeClassView] = field(default_factory=dict)
    daemon_sets: Mapping[str, DaemonSetView] = field(default_factory=dict)
    pods: tuple[PodView, ...] = ()
    image_pulls: tuple[ImagePullView, ...] = ()
    """The failed pulls; observed only while a DaemonSet of agents has unavailable pods."""
    searched: frozenset[str] = frozenset()
    """The nodes whose pods were listed."""

    def image_pulls_of(self, runtime: str) -> tuple[ImagePullView, ...]:
        """Return the failed pulls of a NodeRuntime's agents."""
        return tuple(pull for pull in self.image_pulls if pull.runtime == runtime)

    def pods_on(self, nodes: Iterable[str], handlers: Iterable[str]) -> list[PodView]:
        """Return the pods on these nodes that use these handlers, through any RuntimeClass of the cluster."""
        wanted_nodes, wanted_handlers = set(nodes), set(handlers)
        return [
            pod
            for pod in self.pods
            if pod.node in wanted_nodes and self.handler_of(pod.runtime_class) in wanted_handlers
        ]

    def handler_of(self, runtime_class: str) -> str:
        """Return the handler of a RuntimeClass; for a deleted class assume a handler of the same name."""
        known = self.runtime_classes.get(runtime_class)
        return known.handler if known else runtime_class


def number_of(value: int | str, total: int) -> int:
    """Return a number, or a percentage such as "10%" of the total, rounded up."""
    if isinstance(value, int):
        return value
    return -(-int(value.removesuffix("%")) * total // 100)


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector matches these labels. An empty selector matches nothing."""
    exact = selector.match_labels or {}
    terms = selector.match_expressions or []
    if not exact and not terms:
        return False
    return all(labels.get(key) == value for key, value in exact.items()) and all(
        _matches_term(term, labels) for term in terms
    )


def _matches_term(term: SelectorRequirement, labels: Mapping[str, str]) -> bool:
    """Return whether one term of a label selector matches; NotIn also matches an absent label."""
    present, values = term.key in labels, term.values or []
    match term.operator:
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case "In":
            return present and labels[term.key] in values
        case "NotIn":
            return not present or labels[term.key] not in values
