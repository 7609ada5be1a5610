"""The cluster as an Observation.

kopf's indices hold a view of every object, cut down when it arrives; kopf runs no handler before
the first listing of all of them is complete, so an index is never taken for empty because it is
young. Pods are too many to be cached for the rare moment in which they count: they are listed then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from noderuntime_operator.api import (
    OWNER_LABEL,
    InstanceSpec,
    InstanceStatus,
    NodeRuntimeSpec,
    NodeRuntimeStatus,
)
from noderuntime_operator.kube import Kube
from noderuntime_operator.observation import (
    DaemonSetView,
    InstanceView,
    NodeView,
    Observation,
    PodView,
    RuntimeClassView,
    RuntimeView,
)
from noderuntime_operator.rollout import nodes_to_search

Body = Mapping[str, Any]
View = TypeVar("View")
Index = Mapping[str, Collection[View]]
"""A kopf index by name: every name has one view."""

ONE_BY_ONE = 20
"""Up to so many nodes have their pods listed by node, more of them all at once."""

_FINISHED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Caches:
    """The live indices."""

    runtimes: Index[RuntimeView]
    nodes: Index[NodeView]
    instances: Index[InstanceView]
    runtime_classes: Index[RuntimeClassView]
    daemon_sets: Index[DaemonSetView]

    def runtime(self, name: str) -> RuntimeView | None:
        """Return a NodeRuntime, or None when it is gone."""
        return next(iter(self.runtimes.get(name, ())), None)

    def instance(self, name: str) -> InstanceView | None:
        """Return a NodeRuntimeInstance, or None when there is none."""
        return next(iter(self.instances.get(name, ())), None)


async def observe(kube: Kube, caches: Caches, runtime: RuntimeView) -> Observation:
    """Return the cluster as it matters to one NodeRuntime."""
    seen = Observation(
        nodes=_views(caches.nodes),
        instances=_views(caches.instances),
        runtime_classes=_views(caches.runtime_classes),
        daemon_sets=_views(caches.daemon_sets),
    )
    nodes = nodes_to_search(runtime, seen)
    selectors = [f"spec.nodeName={name}" for name in nodes] if len(nodes) <= ONE_BY_ONE else [""]
    pods: list[PodView] = []
    for selector in selectors:
        pods += [view async for body in kube.list("Pod", selector) if (view := pod_view(body))]
    return seen.with_pods(pods)


def _views(index: Index[View]) -> dict[str, View]:
    return {name: view for name, views in index.items() for view in views}


def runtime_view(body: Body) -> RuntimeView:
    """Return the view of a NodeRuntime."""
    meta = body["metadata"]
    return RuntimeView(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        generation=meta["generation"],
        deleting="deletionTimestamp" in meta,
        finalizers=tuple(meta.get("finalizers", ())),
        spec=NodeRuntimeSpec.model_validate(dict(body["spec"])),
        status=NodeRuntimeStatus.model_validate(dict(body.get("status") or {})),
    )


def node_view(body: Body) -> NodeView:
    """Return the view of a Node."""
    meta = body["metadata"]
    conditions = (body.get("status") or {}).get("conditions") or ()
    ready: dict[str, str] = next((c for c in conditions if c["type"] == "Ready"), {})
    since = ready.get("lastTransitionTime")
    return NodeView(
        name=meta["name"],
        uid=meta["uid"],
        labels=dict(meta.get("labels") or {}),
        ready=ready.get("status") == "True",
        since=datetime.fromisoformat(since) if since else None,
    )


def instance_view(body: Body) -> InstanceView:
    """Return the view of a NodeRuntimeInstance. An upstreamSocket that somebody set is theirs, and stays."""
    meta = body["metadata"]
    spec = InstanceSpec.model_validate(dict(body["spec"])).model_copy(update={"upstream_socket": None})
    status = InstanceStatus.model_validate(dict(body.get("status") or {}))
    created = datetime.fromisoformat(meta["creationTimestamp"])
    return InstanceView(meta["name"], meta["generation"], created, spec, status)


def runtime_class_view(body: Body) -> RuntimeClassView:
    """Return the view of a RuntimeClass."""
    meta = body["metadata"]
    return RuntimeClassView(meta["name"], body["handler"], (meta.get("labels") or {}).get(OWNER_LABEL))


def daemon_set_view(body: Body) -> DaemonSetView:
    """Return the view of one of our DaemonSets."""
    meta = body["metadata"]
    return DaemonSetView(meta["name"], (meta.get("labels") or {}).get(OWNER_LABEL, ""))


def pod_view(body: Body) -> PodView | None:
    """Return the view of a pod that a node runs by a RuntimeClass, or None for any other pod."""
    spec, meta = body["spec"], body["metadata"]
    if not spec.get("runtimeClassName") or not spec.get("nodeName"):
        return None
    if (body.get("status") or {}).get("phase") in _FINISHED:
        return None
    return PodView(meta["namespace"], meta["name"], spec["nodeName"], spec["runtimeClassName"])
