"""``NodeRuntimeInstance``: one small object per node, for the node's agent and with its report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from noderuntime_operator.api.base import (
    Condition,
    HandlerName,
    Message,
    Model,
    ObjectName,
    ShortText,
    Timestamp,
    list_map,
    rules,
)
from noderuntime_operator.api.revision import HandlerType, KubeletMode, RuntimeSettings

InstanceState = Literal["Installed", "Removed"]
Phase = Literal["Pending", "Installing", "Switching", "Ready", "Degraded", "Removing", "Removed", "Failed"]


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
