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
    problem: str = ""
    """Why this version does not support the spec, of which only the image is known then."""

    @property
    def handlers(self) -> tuple[str, ...]:
        """The names of the handlers; those of the last report if the spec is not supported."""
        if self.problem:
            return tuple(handler["name"] for handler in self.status.get("handlers") or ())
        return tuple(handler.name for handler in self.spec.handlers)


def parse(body: dict[str, Any]) -> Instance:
    """Parse an API object. InvalidArgument names the field that this version does not support."""
    try:
        return _instance(body, InstanceSpec.model_validate(body.get("spec") or {}))
    except ValidationError as error:
        raise InvalidArgument(f"instance: spec.{first_problem(error)}") from error


def unsupported(body: dict[str, Any], problem: str) -> Instance:
    """Return an API object that :func:`parse` refuses: its image says whether this agent must apply it."""
    image = (body.get("spec") or {}).get("image")
    spec = InstanceSpec(image=image if isinstance(image, str) else None)
    return _instance(body, spec).model_copy(update={"problem": problem})


def _instance(body: dict[str, Any], spec: InstanceSpec) -> Instance:
    return Instance(
        generation=body.get("metadata", {}).get("generation", 0),
        spec=spec,
        status=body.get("status") or {},
        retry=(body.get("metadata", {}).get("annotations") or {}).get(RETRY, "")[:100],
    )
