"""Builders of small cluster states for the tests of pure decisions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from noderuntime_operator.api.instance import InstanceSpec, InstanceStatus
from noderuntime_operator.api.names import FINALIZER, HANDLER_LABEL_PREFIX, OWNER_LABEL
from noderuntime_operator.api.noderuntime import NodeRuntimeSpec
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.cluster_state import (
    ClusterState,
    DaemonSetView,
    InstanceView,
    NodeView,
    PodView,
    RuntimeClassView,
    RuntimeView,
)
from noderuntime_operator.desired import daemon_set_name, instance_spec, revision_of

CREATED = datetime(2026, 1, 1, 23, 58, tzinfo=UTC)


def spec(*handlers: str, limit: int = 1, **more: Any) -> NodeRuntimeSpec:
    return NodeRuntimeSpec.model_validate(
        {
            "selector": {"matchLabels": {"pool": "a"}},
            "handlers": [{"name": name, "type": "Runc"} for name in handlers or ("runc",)],
            "update": {"maxUnavailable": limit},
            **more,
        }
    )


def runtime(
    of: NodeRuntimeSpec | None = None,
    name: str = "rt",
    deleting: bool = False,
    status: NodeRuntimeStatus | None = None,
) -> RuntimeView:
    return RuntimeView(
        name, "uid", "1", 1, deleting, (FINALIZER,), of or spec(), status or NodeRuntimeStatus()
    )


def node(
    name: str, *handlers: str, claimed: str | None = "rt", ready: bool = True, pool: str = "a"
) -> NodeView:
    labels = {"pool": pool} | {HANDLER_LABEL_PREFIX + handler: "true" for handler in handlers}
    if claimed:
        labels[OWNER_LABEL] = claimed
    return NodeView(name, f"uid-{name}", labels, ready)


def instance(
    name: str,
    phase: str | None = "Ready",
    of: NodeRuntimeSpec | None = None,
    runtime_name: str = "rt",
    generation: int = 1,
    state: str = "Installed",
    **status: Any,
) -> InstanceView:
    wanted: InstanceSpec = instance_spec(name, runtime_name, revision_of(of or spec())).model_copy(
        update={"state": state}
    )
    report = {"observedGeneration": 1, "phase": phase, **status} if phase else {}
    return InstanceView(name, generation, CREATED, wanted, InstanceStatus.model_validate(report))


def proven(*names: str, state: str = "Ready", **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "state": state, **more} for name in names]


def world(
    *objects: NodeView | InstanceView | PodView | RuntimeClassView, daemon_set: bool = False
) -> ClusterState:
    def of(kind: type) -> dict[str, Any]:
        return {o.name: o for o in objects if isinstance(o, kind)}

    agents = {daemon_set_name("rt"): DaemonSetView(daemon_set_name("rt"), "rt")} if daemon_set else {}
    pods = tuple(o for o in objects if isinstance(o, PodView))
    return ClusterState(of(NodeView), of(InstanceView), of(RuntimeClassView), agents, pods)


def runtime_class(
    name: str = "runc",
    handler: str = "runc",
    owner: str | None = "rt",
    selects: Iterable[str] = (),
    removing: bool = False,
) -> RuntimeClassView:
    return RuntimeClassView(name, handler, owner, f"uid-{name}", frozenset(selects), removing)


def pod(name: str = "user", on: str = "n1", of: str = "runc") -> PodView:
    return PodView("default", name, on, of)
