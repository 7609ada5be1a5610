"""``NodeRuntime``: which nodes get which handlers, and how changes reach them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from noderuntime_operator.api.base import Model, NumberOrPercent, PositiveOrPercent, list_map, rules
from noderuntime_operator.api.revision import Handler, KubeletSpec, RuntimeSettings
from noderuntime_operator.api.selectors import LabelSelector
from noderuntime_operator.api.status import NodeRuntimeStatus


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


def _class_of(handler: str) -> str:
    """Return the CEL expression of a handler's RuntimeClass."""
    return f"(has({handler}.runtimeClassName) ? {handler}.runtimeClassName : {handler}.name)"


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


class NodeRuntime(Model):
    """A container runtime for a set of nodes: their pods select runc or gVisor by RuntimeClass."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.metadata.name.size() <= 63", "the name is used as a label value: at most 63 characters")
        )
    )

    spec: NodeRuntimeSpec
    status: NodeRuntimeStatus | None = None
