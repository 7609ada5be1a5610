"""The state of the cluster as frozen views, which hold only the fields that decisions need.

The operator holds thousands of nodes in memory, so a view keeps no reference to the object it was built from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from sys import intern
from typing import Literal

from noderuntime_operator.api.instance import InstanceSpec, InstanceStatus
from noderuntime_operator.api.names import HANDLER_LABEL_PREFIX, OWNER_LABEL, SKIP_LABEL
from noderuntime_operator.api.noderuntime import NodeRuntimeSpec
from noderuntime_operator.api.revision import Revision
from noderuntime_operator.api.selectors import LabelSelector, SelectorRequirement
from noderuntime_operator.api.status import NodeRuntimeStatus

FAILED = frozenset({"Failed", "Degraded"})
"""Phases in which a node has failed, at least with one handler."""

KNOWN = FAILED | {"Ready"}
"""Phases in which an agent has finished, and its report is about the node's present state."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Outside = Literal["NotReady", "Cordoned", "Skipped"]


_OF_THE_NODE = {"node_name", "runtime_name", "state", "upstream_socket"}


def template_of(spec: InstanceSpec) -> str:
    """Return what a spec gives to its node, in a form that can be compared fast."""
    return intern(spec.model_dump_json(exclude=_OF_THE_NODE))


@lru_cache(maxsize=1024)
def _shared(names: frozenset[str]) -> frozenset[str]:
    """Return an equal set; the views of a fleet then share one."""
    return names


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
    retry: str = ""
    """The value of the annotation noderuntime.dev/retry."""
    rollback_to: str = ""
    """The revision that the annotation noderuntime.dev/rollback-to names."""


@dataclass(frozen=True)
class RevisionView:
    """A revision of a NodeRuntime, which a ControllerRevision stores."""

    name: str
    revision: Revision
    number: int = 0
    """Its place in the history; 0 if it is not stored yet."""


@dataclass(frozen=True)
class NodeView:
    """One Node: its labels, its Ready condition and since when the condition has its value."""

    name: str
    uid: str
    labels: Mapping[str, str]
    ready: bool
    since: datetime | None = None
    resource_version: str = field(default="", compare=False)
    unschedulable: bool = False
    foreign_handlers: frozenset[str] = frozenset()
    """The handlers whose labels another client than the operator set: they prove nothing."""
    handler_labels: frozenset[str] = field(init=False, compare=False)
    """The handlers that the node's labels offer to the scheduler."""

    def __post_init__(self) -> None:
        prefix = HANDLER_LABEL_PREFIX
        handlers = frozenset(key.removeprefix(prefix) for key in self.labels if key.startswith(prefix))
        object.__setattr__(self, "handler_labels", _shared(handlers))

    @property
    def outside(self) -> Outside | None:
        """Return why a rollout leaves the node out, or None."""
        if not self.ready:
            return "NotReady"
        if SKIP_LABEL in self.labels:
            return "Skipped"
        return "Cordoned" if self.unschedulable else None

    @property
    def claimed_by(self) -> str | None:
        """The NodeRuntime named by the node's label, or None."""
        return self.labels.get(OWNER_LABEL)


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
    node_uid: str = ""
    """The uid of the Node that the instance was created for."""
    taken: datetime | None = None
    """When the operator last changed the spec."""
    failed_before: bool = False
    """Whether the node had failed before that."""
    retry: str = ""
    """The value of the annotation noderuntime.dev/retry."""
    template: str = field(init=False, compare=False)
    """What the spec gives to the node; equal for all nodes that are given the same."""
    ready_handlers: frozenset[str] = field(init=False, compare=False)
    """The handlers that the last report proves, whatever spec it is about."""
    has_broken_handler: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        handlers = self.status.handlers or ()
        ready = frozenset(handler.name for handler in handlers if handler.state == "Ready")
        object.__setattr__(self, "template", template_of(self.spec))
        object.__setattr__(self, "ready_handlers", _shared(ready))
        object.__setattr__(self, "has_broken_handler", any(h.state == "Broken" for h in handlers))

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
        """Whether the node is changing."""
        done = {"Removed"} if self.spec.state == "Removed" else KNOWN
        return not self.observed or self.status.phase not in done

    @property
    def kubelet_elsewhere(self) -> bool:
        """Whether the agent reports that the node's kubelet uses another runtime.

        While a node installs or switches, the report can be about an earlier state, so it is not used.
        """
        kubelet = self.status.kubelet
        return self.status.phase in KNOWN and kubelet is not None and kubelet.state == "Upstream"

    @property
    def failure(self) -> tuple[str, str]:
        """The reason and message that the agent reports: of its broken handlers, else of its node."""
        broken = [h for h in self.status.handlers or () if h.state == "Broken"]
        if self.status.phase == "Degraded" and broken:
            message = "; ".join(f"handler {h.name}: {h.message or h.reason or 'broken'}" for h in broken)
            return broken[0].reason or "HandlerBroken", message
        for condition in self.status.conditions or ():
            if condition.type == "Ready" and condition.status != "True":
                return condition.reason, condition.message
        return str(self.status.phase), f"the agent reports phase {self.status.phase}"

    @property
    def has_run(self) -> bool:
        """Whether an agent has perhaps changed the node."""
        return self.status.phase is not None or self.restored

    @property
    def removed(self) -> bool:
        """Whether noderuntime is removed from the node, or was never installed there."""
        if self.spec.state != "Removed":
            return False
        return not self.has_run or (self.observed and self.status.phase == "Removed")


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
    outdated: int = 0
    """Nodes whose agent's pod was made from an older template."""
    uid: str = ""
    generation: int = 0
    resource_version: str = field(default="", compare=False)


@dataclass(frozen=True)
class ImagePullView:
    """An agent's pod whose image the kubelet cannot pull: the kubelet's reason and message."""

    node: str
    image: str
    reason: str
    message: str


@dataclass(frozen=True)
class OtherAgentsView:
    """A DaemonSet of agents in another namespace than the operator's."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class AgentPodView:
    """An agent's pod."""

    name: str
    uid: str
    node: str
    image: str
    service_account: str = ""
    """The uid of the ServiceAccount that the pod's token belongs to."""
    runtime: str = ""
    """The NodeRuntime that the agent works for."""
    pull: ImagePullView | None = None
    """The failed pull of its image, if any."""
    resource_version: str = field(default="", compare=False)


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
    searched: frozenset[str] = frozenset()
    """The nodes whose pods were listed."""
    now: datetime = EPOCH
    outage: tuple[datetime, datetime] | None = None
    """The last outage of the API server that the operator has seen: agents could not report meanwhile."""
    agent_image: str = ""
    """The image that the operator's settings require of the agents."""
    service_account: str = ""
    """The uid of the agents' ServiceAccount."""
    revisions: Mapping[str, RevisionView] = field(default_factory=dict)
    """The stored revisions of the NodeRuntime that is reconciled."""
    agent_pods: tuple[AgentPodView, ...] = ()
    """The agents' pods on the nodes that rollout.agents_to_search returns, and those that cannot work: their
    account was lost, or their image cannot be pulled."""
    vanished: frozenset[str] = frozenset()
    """NodeRuntimes that do not exist, although selected nodes or required RuntimeClasses belong to them."""
    other_agents: tuple[OtherAgentsView, ...] = ()
    """DaemonSets of the NodeRuntime's agents in other namespaces, which another release left."""

    @property
    def image_pulls(self) -> tuple[ImagePullView, ...]:
        """The failed pulls of the agents' image."""
        return tuple(pod.pull for pod in self.agent_pods if pod.pull)

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


def limit_of(value: int | str, total: int) -> int:
    """Return a number, or a percentage such as "10%" of the total, rounded down."""
    return value if isinstance(value, int) else int(value.removesuffix("%")) * total // 100


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector matches these labels. An empty selector matches nothing."""
    exact = selector.match_labels or {}
    terms = selector.match_expressions or []
    if not exact and not terms:
        return False
    return exact.items() <= labels.items() and all(_matches_term(term, labels) for term in terms)


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
