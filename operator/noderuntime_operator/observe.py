"""Observe the cluster: build a ClusterState from kopf's indices and the API server.

kopf's indices hold a view of every object, built when the object arrives. kopf runs no handler before
the first listing of all of them is complete, so an index that is not yet filled is never taken for an
empty one. Pods are too many to cache; they are listed only when they matter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, TypeVar

from noderuntime_operator.api import (
    OWNER_LABEL,
    REMOVING_LABEL,
    RESTORED_ANNOTATION,
    InstanceSpec,
    InstanceStatus,
    NodeRuntimeSpec,
    NodeRuntimeStatus,
)
from noderuntime_operator.cluster_state import (
    ClusterState,
    DaemonSetView,
    ImagePullView,
    InstanceView,
    NodeView,
    PodView,
    RuntimeClassView,
    RuntimeView,
)
from noderuntime_operator.desired import daemon_set_name
from noderuntime_operator.kube import Kube
from noderuntime_operator.rollout import nodes_to_search

Body = Mapping[str, Any]
View = TypeVar("View")
Index = Mapping[str, Collection[View]]
"""A kopf index by name, with one view per name."""

ONE_BY_ONE = 20
"""For at most this many nodes the pods are listed node by node; for more, all pods are listed at once."""

_PULL_FAILURES = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_FINISHED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Caches:
    """The indices that kopf keeps up to date."""

    runtimes: Index[RuntimeView]
    nodes: Index[NodeView]
    instances: Index[InstanceView]
    runtime_classes: Index[RuntimeClassView]
    daemon_sets: Index[DaemonSetView]

    def sizes(self) -> dict[str, int]:
        """Return the number of objects by the name of their index."""
        return {field.name: len(getattr(self, field.name)) for field in fields(self)}

    def runtime(self, name: str) -> RuntimeView | None:
        """Return a NodeRuntime, or None if it does not exist."""
        return next(iter(self.runtimes.get(name, ())), None)

    def instance(self, name: str) -> InstanceView | None:
        """Return a NodeRuntimeInstance, or None if it does not exist."""
        return next(iter(self.instances.get(name, ())), None)


async def observe(kube: Kube, caches: Caches, runtime: RuntimeView) -> ClusterState:
    """Return the state of the cluster, with the pods that matter to one NodeRuntime."""
    cluster = ClusterState(
        nodes=_views(caches.nodes),
        instances=_views(caches.instances),
        runtime_classes=_views(caches.runtime_classes),
        daemon_sets=_views(caches.daemon_sets),
    )
    nodes = nodes_to_search(runtime, cluster)
    selectors = [f"spec.nodeName={name}" for name in nodes] if len(nodes) <= ONE_BY_ONE else [""]
    pods: list[PodView] = []
    for selector in selectors:
        pods += [view async for body in kube.list("Pod", selector) if (view := pod_view(body))]
    pulls: list[ImagePullView] = []
    if starting_agents(runtime, cluster):
        found_by = f"{OWNER_LABEL}={runtime.name}"
        bodies = kube.list("AgentPod", "status.phase=Pending", found_by)
        pulls = [pull async for body in bodies if (pull := image_pull_view(body))]
    return replace(cluster, pods=tuple(pods), image_pulls=tuple(pulls))


def starting_agents(runtime: RuntimeView, cluster: ClusterState) -> int:
    """Return the number of agents that should run and are not Ready."""
    found = cluster.daemon_sets.get(daemon_set_name(runtime.name))
    return found.unavailable if found else 0


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
    """Return the view of a NodeRuntimeInstance, without upstreamSocket: users own that field."""
    meta = body["metadata"]
    spec = InstanceSpec.model_validate(dict(body["spec"])).model_copy(update={"upstream_socket": None})
    status = InstanceStatus.model_validate(dict(body.get("status") or {}))
    created = datetime.fromisoformat(meta["creationTimestamp"])
    restored = RESTORED_ANNOTATION in (meta.get("annotations") or {})
    return InstanceView(meta["name"], meta["generation"], created, spec, status, restored)


def runtime_class_view(body: Body) -> RuntimeClassView:
    """Return the view of a RuntimeClass."""
    meta = body["metadata"]
    scheduling = body.get("scheduling") or {}
    labels = meta.get("labels") or {}
    return RuntimeClassView(
        name=meta["name"],
        handler=body["handler"],
        owner=labels.get(OWNER_LABEL),
        uid=meta["uid"],
        node_selector=frozenset(scheduling.get("nodeSelector") or ()),
        removing=REMOVING_LABEL in labels,
    )


def daemon_set_view(body: Body) -> DaemonSetView:
    """Return the view of a DaemonSet of agents."""
    meta = body["metadata"]
    unavailable = (body.get("status") or {}).get("numberUnavailable") or 0
    return DaemonSetView(meta["name"], (meta.get("labels") or {}).get(OWNER_LABEL, ""), unavailable)


def image_pull_view(body: Body) -> ImagePullView | None:
    """Return the failed pull of an agent's pod, or None."""
    statuses = (body.get("status") or {}).get("containerStatuses") or ()
    for found in statuses:
        waiting = (found.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _PULL_FAILURES:
            return ImagePullView(
                runtime=body["metadata"]["labels"][OWNER_LABEL],
                node=body["spec"].get("nodeName", ""),
                image=found["image"],
                reason=waiting["reason"],
                message=waiting.get("message", ""),
            )
    return None


def pod_view(body: Body) -> PodView | None:
    """Return the view of an unfinished pod that has a RuntimeClass and a node, else None."""
    spec, meta = body["spec"], body["metadata"]
    if not spec.get("runtimeClassName") or not spec.get("nodeName"):
        return None
    if (body.get("status") or {}).get("phase") in _FINISHED:
        return None
    owners = (f"{o['kind']} {o['name']}" for o in meta.get("ownerReferences") or () if o.get("controller"))
    return PodView(
        namespace=meta["namespace"],
        name=meta["name"],
        node=spec["nodeName"],
        runtime_class=spec["runtimeClassName"],
        owner=next(owners, ""),
    )
