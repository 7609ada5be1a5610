"""The status of a NodeRuntime."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from noderuntime_operator.api.base import (
    Condition,
    Message,
    Model,
    ObjectName,
    ShortText,
    Timestamp,
    list_map,
)

RevisionName = Annotated[str, Field(max_length=80)]


class FailingNode(Model):
    """A node that does not match the spec, and why."""

    name: ObjectName
    reason: ShortText
    message: Message


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
        Annotated[
            RevisionName,
            Field(
                description="The last good revision: its rollout was complete, and no more nodes were outside"
                " than Ready with it."
            ),
        ]
        | None
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
