"""A revision: what a rollout gives to the nodes, which is a part of the NodeRuntime's spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from noderuntime_operator.api.base import HandlerName, Model, ObjectName, rules

KubeletMode = Literal["Delegate", "Replace", "Manual"]
HandlerType = Literal["Runc", "GVisor"]

_ADDRESS = r"^(([0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9a-fA-F:.]+\]):[1-9][0-9]{0,4}$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?$"

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


class Revision(Model):
    """What a rollout gives to the nodes. A ControllerRevision stores it."""

    image: Annotated[str, Field(description="The agents' image.")] = ""
    kubelet: KubeletSpec
    handlers: list[Handler]
    runtime: RuntimeSettings | None = None
