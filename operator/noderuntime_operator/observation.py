"""What the operator sees of the cluster: small frozen views, cut down to what decisions need.

Thousands of nodes are held in memory, so a view keeps no object it came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
"""Phases in which an agent has done what it can do: a broken handler holds up no other node."""


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
    """One node: its labels, and whether the cluster trusts it, and since when."""

    name: str
    uid: str
    labels: Mapping[str, str]
    ready: bool
    since: datetime | None = None

    @property
    def claimed_by(self) -> str | None:
        """The NodeRuntime whose label the node carries."""
        return self.labels.get(OWNER_LABEL)

    @property
    def handler_labels(self) -> frozenset[str]:
        """The handlers that this node's labels offer to the scheduler."""
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

    @property
    def observed(self) -> bool:
        """Whether the agent has acted on the newest spec."""
        return self.status.observed_generation == self.generation

    @property
    def moving(self) -> bool:
        """Whether the node is changing, or failed to: it counts against maxUnavailable."""
        done = {"Removed"} if self.spec.state == "Removed" else SETTLED
        return not self.observed or self.status.phase not in done

    @property
    def removed(self) -> bool:
        """Whether nothing of ours is on the node: taken away, or never put there."""
        if self.spec.state != "Removed":
            return False
        return self.status.phase is None or (self.observed and self.status.phase == "Removed")


@dataclass(frozen=True)
class RuntimeClassView:
    """One RuntimeClass of the cluster, ours or not."""

    name: str
    handler: str
    owner: str | None


@dataclass(frozen=True)
class DaemonSetView:
    """The agents of one NodeRuntime."""

    name: str
    owner: str


@dataclass(frozen=True)
class PodView:
    """A pod that is bound to a node, not finished, and chose a RuntimeClass."""

    namespace: str
    name: str
    node: str
    runtime_class: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Observation:
    """The cluster as one reconcile sees it. Pods are listed only when something has to go."""

    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    instances: Mapping[str, InstanceView] = field(default_factory=dict)
    runtime_classes: Mapping[str, RuntimeClassView] = field(default_factory=dict)
    daemon_sets: Mapping[str, DaemonSetView] = field(default_factory=dict)
    pods: tuple[PodView, ...] = ()

    def with_pods(self, pods: Iterable[PodView]) -> Observation:
        """Return the same cluster with its pods."""
        return replace(self, pods=tuple(pods))

    def instances_of(self, runtime: str) -> dict[str, InstanceView]:
        """Return this NodeRuntime's instances whose node still exists, by node."""
        return {
            name: instance
            for name, instance in self.instances.items()
            if instance.spec.runtime_name == runtime and name in self.nodes
        }

    def pods_on(self, nodes: Iterable[str], handlers: Iterable[str]) -> list[PodView]:
        """Return the pods on these nodes whose RuntimeClass, whoever wrote it, leads to these handlers."""
        wanted_nodes, wanted_handlers = set(nodes), set(handlers)
        return [
            pod
            for pod in self.pods
            if pod.node in wanted_nodes and self.handler_of(pod.runtime_class) in wanted_handlers
        ]

    def handler_of(self, runtime_class: str) -> str:
        """Return the handler behind a class; of a class just deleted, its likely name."""
        known = self.runtime_classes.get(runtime_class)
        return known.handler if known else runtime_class


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Say whether a label selector selects an object with these labels. An empty one selects nothing."""
    exact = selector.match_labels or {}
    terms = selector.match_expressions or []
    if not exact and not terms:
        return False
    return all(labels.get(key) == value for key, value in exact.items()) and all(
        _holds(term, labels) for term in terms
    )


def _holds(term: SelectorRequirement, labels: Mapping[str, str]) -> bool:
    """Say whether one term of a label selector holds; NotIn holds for an absent label too."""
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
