"""The resources of noderuntime.dev/v1alpha1: these models are the only source of the CRDs.

``NodeRuntime`` is what the user writes: which nodes, which handlers. ``NodeRuntimeInstance``
is one small object per node: the operator writes its spec, the node's agent reports in its
status. ``crdgen`` generates structural schemas from both; ``kubectl explain`` prints their
docstrings and descriptions.

Every string, list and map is bounded: the API server refuses CEL rules whose cost it cannot
bound, and an instance must stay small (there is one for each node of the cluster).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP = "noderuntime.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

OWNER_LABEL = f"{GROUP}/runtime"
"""On a node: the NodeRuntime that claimed it. On an object: the NodeRuntime that it belongs to."""

HANDLER_LABEL_PREFIX = f"handler.{GROUP}/"
"""On a node, ``handler.noderuntime.dev/<name>=true``: a canary sandbox of this handler started there."""

REMOVING_LABEL = f"{GROUP}/removing"
"""On a RuntimeClass: it is being removed. An admission policy of the chart rejects new pods of the class."""

RESTORED_ANNOTATION = f"{GROUP}/restored"
"""On an instance that replaces a lost one: only the agent's report proves that its node was cleaned up."""

SKIP_LABEL = f"{GROUP}/skip"
"""On a node, with any value: rollouts do not change the node until the label is removed."""

ORPHANED_LABEL = f"{GROUP}/orphaned"
"""On a node that was unreachable until its NodeRuntime was deleted: noderuntime is still installed there."""

REVISION_LABEL = f"{GROUP}/revision"
"""On a ControllerRevision of the operator: the digest of the revision. Those of DaemonSets do not have it."""

SERVICE_ACCOUNT_LABEL = f"{GROUP}/service-account"
"""On an agent's pod: the uid of its ServiceAccount. The token of an account that was created again is new."""

RETRY_ANNOTATION = f"{GROUP}/retry"
"""On a NodeRuntime or an instance: a change of its value makes a failed version be tried again."""

ROLLBACK_ANNOTATION = f"{GROUP}/rollback-to"
"""On a NodeRuntime: the revision that all nodes get until the annotation is removed."""

TAKEN_ANNOTATION = f"{GROUP}/taken"
"""On an instance: the time of the operator's last change of its spec."""

BEFORE_ANNOTATION = f"{GROUP}/failed-before"
"""On an instance: its node had failed before the last change of its spec, so that is not the cause."""

FINALIZER = f"{GROUP}/finalizer"

KubeletMode = Literal["Delegate", "Replace", "Manual"]
HandlerType = Literal["Runc", "GVisor"]
InstanceState = Literal["Installed", "Removed"]
Phase = Literal["Pending", "Installing", "Switching", "Ready", "Degraded", "Removing", "Removed", "Failed"]

_DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_ADDRESS = r"^(([0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9a-fA-F:.]+\]):[1-9][0-9]{0,4}$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?$"

_PERCENT = r"^(100|[1-9]?[0-9])%$"

HandlerName = Annotated[str, Field(pattern=_DNS_LABEL, max_length=63)]
ObjectName = Annotated[str, Field(pattern=_DNS_SUBDOMAIN, max_length=253)]
ShortText = Annotated[str, Field(max_length=256)]
Message = Annotated[str, Field(max_length=1024)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
RevisionName = Annotated[str, Field(max_length=80)]
LabelKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _QUANTITY,
            "x-kubernetes-int-or-string": True,
        }
    ),
]


def _number_or_percent(minimum: int) -> WithJsonSchema:
    """Return the schema of a number, at least the minimum, or a percentage such as "10%"."""
    return WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": minimum,
            "pattern": _PERCENT if minimum == 0 else _PERCENT.replace("[1-9]?[0-9]", "[1-9][0-9]?"),
            "x-kubernetes-int-or-string": True,
        }
    )


NumberOrPercent = Annotated[int | str, _number_or_percent(0)]
PositiveOrPercent = Annotated[int | str, _number_or_percent(1)]


def list_map(*keys: str) -> dict[str, Any]:
    """Return the schema extension of a list whose items are identified by these keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Return the schema extension for CEL rules: pairs of a rule and its error message."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": text} for rule, text in pairs]}


class Model(BaseModel):
    """An object of the API: camelCase in JSON. The API server prunes unknown fields."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    def dump(self) -> dict[str, Any]:
        """Return the JSON form, without unset fields."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class Condition(Model):
    """One metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    last_transition_time: Timestamp
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=32768)]


class SelectorRequirement(Model):
    """One term of a label selector."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0"
                " : !has(self.values) || self.values.size() == 0",
                "In and NotIn need values; Exists and DoesNotExist must not have values",
            )
        )
    )

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[list[LabelValue], Field(max_length=64)] | None = None


class LabelSelector(Model):
    """Selects nodes by their labels; a node must match both parts. The selector must not be empty."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(has(self.matchLabels) && self.matchLabels.size() > 0)"
                " || (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
                "selector is empty: give at least one label,"
                " for example matchLabels: {kubernetes.io/os: linux}",
            )
        )
    )

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    match_expressions: Annotated[list[SelectorRequirement], Field(max_length=32)] | None = None


class KubeletSpec(Model):
    """How the kubelet is connected to noderuntime."""

    mode: Annotated[
        KubeletMode,
        Field(
            description="Delegate: the kubelet talks to noderuntime, which passes the calls for all other "
            "pods to the runtime that the node already had. Replace (not offered yet): noderuntime is the "
            "node's only runtime. Manual: noderuntime serves its socket and the kubelet is not changed."
        ),
    ] = "Delegate"
    switch_timeout_seconds: Annotated[
        int,
        Field(
            ge=10,
            le=3600,
            description="Seconds within which the node must be Ready again after the switch of its kubelet. "
            "If it is not, the kubelet's old settings are restored.",
        ),
    ] = 120


class Overhead(Model):
    """What a sandbox needs besides its containers, per pod (RuntimeClass overhead.podFixed)."""

    cpu: Quantity | None = None
    memory: Quantity | None = None


class Handler(Model):
    """An OCI runtime that pods select by RuntimeClass."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.type == oldSelf.type",
                "the type of a handler cannot change; add a handler with another name",
            )
        )
    )

    name: Annotated[
        HandlerName, Field(description="Name of the handler in the CRI and in RuntimeClass.handler.")
    ]
    type: Annotated[
        HandlerType, Field(description="Which OCI runtime runs the pods: runc, or runsc of gVisor.")
    ]
    runtime_class_name: (
        Annotated[ObjectName, Field(description="Name of the RuntimeClass. Default: the handler's name.")]
        | None
    ) = None
    overhead: Overhead | None = None

    @property
    def runtime_class(self) -> str:
        """The name of this handler's RuntimeClass."""
        return self.runtime_class_name or self.name


def _class_of(handler: str) -> str:
    """Return the CEL expression of a handler's RuntimeClass."""
    return f"(has({handler}.runtimeClassName) ? {handler}.runtimeClassName : {handler}.name)"


class Canary(Model):
    """The first wave of a rollout: the other nodes follow after these were Ready for the soak time."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.selector) != has(self.nodes)", "canary needs either selector or nodes"),
        )
    )

    selector: LabelSelector | None = None
    nodes: Annotated[
        PositiveOrPercent | None,
        Field(description='How many nodes are canaries: a number, or a percentage such as "1%".'),
    ] = None
    soak_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=604800,
            description="Seconds from the moment when the last canary was Ready to the next wave.",
        ),
    ] = 300


class Update(Model):
    """How changes of the spec and of the agents' image reach the nodes."""

    max_unavailable: Annotated[
        PositiveOrPercent,
        Field(
            description="Maximum number of nodes that change at a time: a number, or a percentage of the"
            " selected nodes, rounded up."
        ),
    ] = 1
    canary: Canary | None = None
    paused: Annotated[bool, Field(description="Change no more nodes; those that are changing finish.")] = (
        False
    )
    rollback: Annotated[
        Literal["Automatic", "Never"],
        Field(
            description="Automatic: a rollout with more than maxFailures failed nodes goes back to the last"
            " revision that all nodes had. Never: it only stops."
        ),
    ] = "Automatic"
    max_failures: Annotated[
        NumberOrPercent,
        Field(
            description="How many nodes can fail before a rollout stops: a number, or a percentage of the"
            " selected nodes, rounded down."
        ),
    ] = 0


class Removal(Model):
    """What happens to unreachable nodes when the NodeRuntime is deleted."""

    policy: Annotated[
        Literal["Orphan", "WaitForever"],
        Field(
            description="Orphan: a node that has been unreachable for orphanAfterSeconds no longer holds the"
            " deletion; it gets the label noderuntime.dev/orphaned. WaitForever: the deletion waits until the"
            " node is Ready or its Node object is deleted."
        ),
    ] = "Orphan"
    orphan_after_seconds: Annotated[int, Field(ge=0, le=31536000)] = 3600


class GvisorSettings(Model):
    """The flags of gVisor that can be chosen. Running pods keep the flags with which they were created."""

    platform: Annotated[
        Literal["Systrap", "KVM"],
        Field(description="KVM intercepts system calls faster on bare metal; nodes need /dev/kvm."),
    ] = "Systrap"
    host_sockets: Annotated[
        Literal["None", "Connect"],
        Field(
            description="Connect: pods can connect to unix sockets in their volumes, for example to a daemon"
            " of the node. This weakens the isolation of pods with such volumes."
        ),
    ] = "None"
    direct_fs: Annotated[
        bool,
        Field(
            description="false: only a proxy process opens files, so that the sandbox has fewer privileges."
            " File access is slower."
        ),
    ] = True
    core_tags: Annotated[
        bool,
        Field(
            description="true: two sandboxes never run on the hyperthreads of one core, which closes side"
            " channels between them. Needs Linux 5.14."
        ),
    ] = False


class MetricsSettings(Model):
    """Where the daemon of a node serves Prometheus metrics, without TLS or authentication."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "int(self.address.substring(self.address.lastIndexOf(':') + 1)) <= 65535",
                "the port of address is larger than 65535",
            )
        )
    )

    address: Annotated[
        str,
        Field(
            pattern=_ADDRESS,
            max_length=64,
            description="IP address and port: 127.0.0.1:9464, 0.0.0.0:9464 or [::1]:9464.",
        ),
    ]


class RuntimeSettings(Model):
    """The daemon's own settings. A change is a new revision and reaches the nodes in waves."""

    log_level: Literal["Debug", "Info", "Warning", "Error"] = "Info"
    metrics: Annotated[MetricsSettings | None, Field(description="Unset: the daemon serves no metrics.")] = (
        None
    )
    gvisor: GvisorSettings = Field(default_factory=GvisorSettings, json_schema_extra={"default": {}})


class NodeRuntimeSpec(Model):
    """Which nodes get which handlers."""

    selector: LabelSelector
    kubelet: KubeletSpec = Field(default_factory=KubeletSpec, json_schema_extra={"default": {}})
    handlers: Annotated[
        list[Handler],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={
                **list_map("name"),
                **rules(
                    (
                        f"self.all(a, self.exists_one(b, {_class_of('a')} == {_class_of('b')}))",
                        "two handlers have the same runtimeClassName",
                    )
                ),
            },
        ),
    ]
    update: Update = Field(default_factory=Update, json_schema_extra={"default": {}})
    min_available: Annotated[
        NumberOrPercent,
        Field(
            description="The condition Available is True while pods of every handler can start on this many"
            " nodes: a number, or a percentage of the selected nodes, rounded up."
        ),
    ] = "90%"
    removal: Removal = Field(default_factory=Removal, json_schema_extra={"default": {}})
    runtime: RuntimeSettings | None = None


class FailingNode(Model):
    """A node that does not match the spec, and why."""

    name: ObjectName
    reason: ShortText
    message: Message


class Revision(Model):
    """What a rollout gives to the nodes. A ControllerRevision stores it."""

    image: Annotated[str, Field(description="The agents' image.")] = ""
    kubelet: KubeletSpec
    handlers: list[Handler]
    runtime: RuntimeSettings | None = None


class OutsideNode(Model):
    """A node that a rollout leaves out for now, and why; it is caught up later."""

    name: ObjectName
    reason: Literal["NotReady", "Cordoned", "Skipped"]


class Wave(Model):
    """The progress of the rollout of updateRevision."""

    phase: Annotated[
        Literal["Canary", "Soaking", "Rolling", "Paused", "Stopped", "Complete"],
        Field(
            description="Canary: the canary nodes change. Soaking: they are observed for soakSeconds."
            " Rolling: the others change, at most maxUnavailable at a time. Stopped: too many nodes failed."
        ),
    ]
    nodes: Annotated[int, Field(ge=0, description="Nodes that the rollout must reach.")]
    updated: Annotated[int, Field(ge=0, description="Nodes that were given updateRevision.")]
    ready: Annotated[int, Field(ge=0, description="Nodes that are Ready with updateRevision.")]
    failed: Annotated[int, Field(ge=0, description="Nodes that updateRevision failed on.")]
    outside: Annotated[
        int,
        Field(ge=0, description="Nodes that are off, cordoned or skipped; they are caught up later."),
    ]
    waiting_for: Annotated[str, Field(max_length=1024)] = ""
    soaking_since: Annotated[
        Timestamp | None, Field(description="When the last of the canary nodes was Ready.")
    ] = None


class VersionCount(Model):
    """How many nodes run a version."""

    version: ShortText
    image: Annotated[str, Field(max_length=512)]
    nodes: Annotated[int, Field(ge=0)]


class ReasonCount(Model):
    """How many nodes fail for a reason."""

    reason: ShortText
    nodes: Annotated[int, Field(ge=0)]


class StateCount(Model):
    """How many nodes are in a phase."""

    state: ShortText
    nodes: Annotated[int, Field(ge=0)]


class FailedRevision(Model):
    """A revision that was rolled back, and why. It is tried again when spec, image or retry change."""

    revision: RevisionName
    message: Message
    retry: Annotated[
        ShortText, Field(description="The value of the annotation noderuntime.dev/retry at the rollback.")
    ] = ""


class NodeRuntimeStatus(Model):
    """The state of all selected nodes, as the operator observed it."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    desired_nodes: Annotated[int, Field(ge=0, description="Nodes that the selector matches.")] | None = None
    ready_nodes: Annotated[int, Field(ge=0, description="Nodes that do what the spec promises.")] | None = (
        None
    )
    updated_nodes: (
        Annotated[int, Field(ge=0, description="Nodes whose agent has applied the newest spec.")] | None
    ) = None
    unreachable_nodes: (
        Annotated[
            int,
            Field(
                ge=0,
                description="Nodes with noderuntime that have not been Ready for more than a minute. They are"
                " changed when they return; a deletion waits for them as spec.removal says.",
            ),
        ]
        | None
    ) = None
    conditions: (
        Annotated[list[Condition], Field(max_length=16, json_schema_extra=list_map("type"))] | None
    ) = None
    failing_nodes: (
        Annotated[
            list[FailingNode],
            Field(
                max_length=10,
                json_schema_extra=list_map("name"),
                description="At most ten failing nodes; readyNodes and desiredNodes count all nodes.",
            ),
        ]
        | None
    ) = None
    available_nodes: (
        Annotated[int, Field(ge=0, description="Nodes that offer every handler to pods.")] | None
    ) = None
    current_revision: (
        Annotated[RevisionName, Field(description="The last revision that all nodes had.")] | None
    ) = None
    update_revision: Annotated[RevisionName, Field(description="The revision of the rollout.")] | None = None
    failed_revision: FailedRevision | None = None
    wave: Wave | None = None
    outside_nodes: (
        Annotated[list[OutsideNode], Field(max_length=10, json_schema_extra=list_map("name"))] | None
    ) = None
    versions: (
        Annotated[list[VersionCount], Field(max_length=10, json_schema_extra=list_map("version", "image"))]
        | None
    ) = None
    reasons: (
        Annotated[list[ReasonCount], Field(max_length=10, json_schema_extra=list_map("reason"))] | None
    ) = None
    states: Annotated[list[StateCount], Field(max_length=10, json_schema_extra=list_map("state"))] | None = (
        None
    )


class NodeRuntime(Model):
    """A container runtime for a set of nodes: their pods select runc or gVisor by RuntimeClass."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.metadata.name.size() <= 63", "the name is used as a label value: at most 63 characters")
        )
    )

    spec: NodeRuntimeSpec
    status: NodeRuntimeStatus | None = None


class InstanceHandler(Model):
    """A handler that the node must offer."""

    name: HandlerName
    type: HandlerType


class InstanceKubelet(Model):
    """How this node's kubelet is connected to noderuntime."""

    mode: KubeletMode
    switch_timeout_seconds: Annotated[int, Field(ge=10, le=3600)]


class InstanceSpec(Model):
    """The desired state of one node, written by the operator for the node's agent."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.nodeName == oldSelf.nodeName", "nodeName cannot change"),
            ("self.runtimeName == oldSelf.runtimeName", "runtimeName cannot change"),
        )
    )

    node_name: ObjectName
    runtime_name: Annotated[str, Field(max_length=63, description="The NodeRuntime that claimed the node.")]
    state: Annotated[
        InstanceState,
        Field(
            description="Removed: restore the kubelet's settings, remove noderuntime from the node, then "
            "report phase Removed."
        ),
    ] = "Installed"
    image: (
        Annotated[
            str,
            Field(
                max_length=512,
                description="The agents' image that this node must have. An agent of another image only"
                " reports; it changes nothing on the node.",
            ),
        ]
        | None
    ) = None
    kubelet: InstanceKubelet
    handlers: Annotated[list[InstanceHandler], Field(max_length=16, json_schema_extra=list_map("name"))]
    upstream_socket: (
        Annotated[
            str,
            Field(
                max_length=108,
                description="CRI socket that the kubelet used before. Default: the agent detects it.",
            ),
        ]
        | None
    ) = None
    runtime: RuntimeSettings | None = None


class HandlerStatus(Model):
    """Whether pods of this handler can start on the node, according to the last canary sandbox."""

    name: HandlerName
    state: Literal["Ready", "Broken", "Unknown"]
    reason: ShortText | None = None
    message: Message | None = None
    version: ShortText | None = None
    last_probe_time: Timestamp | None = None


class KubeletStatus(Model):
    """Which runtime the node's kubelet talks to, and where that is configured."""

    state: Literal["Upstream", "Noderuntime"]
    configured_by: Literal["FlagsFile", "ConfigFile", "DropIn"] | None = None
    upstream_socket: Annotated[str, Field(max_length=256)] | None = None


class InstanceStatus(Model):
    """The state of the node, reported by its agent on changes and with a heartbeat every ten minutes."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    phase: Phase | None = None
    agent_image: (
        Annotated[str, Field(max_length=512, description="The image of the agent that reports.")] | None
    ) = None
    bundle_digest: ShortText | None = None
    runtime_version: ShortText | None = None
    kubelet: KubeletStatus | None = None
    handlers: (
        Annotated[list[HandlerStatus], Field(max_length=16, json_schema_extra=list_map("name"))] | None
    ) = None
    conditions: (
        Annotated[list[Condition], Field(max_length=16, json_schema_extra=list_map("type"))] | None
    ) = None
    last_heartbeat_time: Timestamp | None = None


class NodeRuntimeInstance(Model):
    """The runtime on one node, with the node's name. The operator writes it; users only read it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.metadata.name == self.spec.nodeName", "metadata.name must equal spec.nodeName")
        )
    )

    spec: InstanceSpec
    status: InstanceStatus | None = None
