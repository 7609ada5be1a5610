"""The part of a NodeRuntimeInstance that the agent uses.

The schema is defined by the operator's models, which are not installed on the node. These models
therefore ignore unknown fields.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from noderuntime.config import HandlerName
from noderuntime.core.errors import InvalidArgument, first_problem


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class InstanceHandler(_Model):
    """A handler that the node must offer."""

    name: HandlerName
    type: Literal["Runc", "GVisor"]


class InstanceKubelet(_Model):
    """How the runtime is connected to this node's kubelet."""

    mode: Literal["Delegate", "Replace", "Manual"] = "Delegate"
    switch_timeout_seconds: int = 120


class InstanceGvisor(_Model):
    """The flags of runsc that the node can choose; see :class:`noderuntime.config.RunscConfig`."""

    platform: Literal["Systrap", "KVM"] = "Systrap"
    host_sockets: Literal["None", "Connect"] = "None"
    direct_fs: bool = True
    core_tags: bool = False


class InstanceMetrics(_Model):
    """Where the daemon serves its metrics."""

    address: str


class InstanceRuntime(_Model):
    """The daemon's own settings."""

    log_level: Literal["Debug", "Info", "Warning", "Error"] = "Info"
    metrics: InstanceMetrics | None = None
    gvisor: InstanceGvisor = InstanceGvisor()


class InstanceSpec(_Model):
    """The desired state of one node, written by the operator."""

    state: Literal["Installed", "Removed"] = "Installed"
    image: str | None = None
    """The agents' image that the node must have. An agent of another image installs nothing."""
    kubelet: InstanceKubelet = InstanceKubelet()
    handlers: tuple[InstanceHandler, ...] = ()
    upstream_socket: str | None = None
    runtime: InstanceRuntime = InstanceRuntime()


RETRY = "noderuntime.dev/retry"
"""The annotation whose change makes the agent try a version again that it rolled back."""


class Instance(_Model):
    """A NodeRuntimeInstance as the API server returned it."""

    generation: int
    spec: InstanceSpec
    status: dict[str, Any]
    retry: str = ""
    """The value of the annotation :data:`RETRY`."""


def parse(body: dict[str, Any]) -> Instance:
    """Parse an API object. InvalidArgument names the field that this version does not support."""
    try:
        return Instance(
            generation=body.get("metadata", {}).get("generation", 0),
            spec=InstanceSpec.model_validate(body.get("spec") or {}),
            status=body.get("status") or {},
            retry=(body.get("metadata", {}).get("annotations") or {}).get(RETRY, "")[:100],
        )
    except ValidationError as error:
        raise InvalidArgument(f"instance: spec.{first_problem(error)}") from error
