"""The part of a NodeRuntimeInstance's spec that its agent acts on.

The operator's models are the schema's source; the node does not carry them, so this
reads leniently what they wrote: unknown fields are ignored.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from noderuntime.config import HandlerName
from noderuntime.core.errors import InvalidArgument


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class InstanceHandler(_Model):
    """A handler the node has to offer."""

    name: HandlerName
    type: Literal["Runc", "GVisor"]


class InstanceKubelet(_Model):
    """How the runtime stands beside this node's kubelet."""

    mode: Literal["Delegate", "Replace", "Manual"] = "Delegate"
    switch_timeout_seconds: int = 120


class InstanceSpec(_Model):
    """The operator's order to the agent of one node."""

    state: Literal["Installed", "Removed"] = "Installed"
    kubelet: InstanceKubelet = InstanceKubelet()
    handlers: tuple[InstanceHandler, ...] = ()
    upstream_socket: str | None = None


class Instance(_Model):
    """One NodeRuntimeInstance as the API server has it."""

    generation: int
    spec: InstanceSpec
    status: dict[str, Any]


def parse(body: dict[str, Any]) -> Instance:
    """Read an object of the API; InvalidArgument says which field this version does not understand."""
    try:
        return Instance(
            generation=body.get("metadata", {}).get("generation", 0),
            spec=InstanceSpec.model_validate(body.get("spec") or {}),
            status=body.get("status") or {},
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise InvalidArgument(f"instance: spec.{where}: {first['msg']}") from error
