"""Observe the cluster: build a ClusterState from the caches and the API server.

The caches hold a view of every object, built when the object arrives. Nothing is reconciled before they are
complete, so a cache that is not yet filled is never taken for an empty one. Views of a fleet are mostly
equal, so they share their parts. Pods are too many to cache; they are observed only when they matter.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from sys import intern
from typing import Any, Self, TypeVar, cast

from pydantic import ValidationError

from noderuntime_operator.api.base import Condition, Model
from noderuntime_operator.api.instance import InstanceSpec, InstanceStatus
from noderuntime_operator.api.names import (
    BEFORE_ANNOTATION,
    HANDLER_LABEL_PREFIX,
    OWNER_LABEL,
    REMOVING_LABEL,
    RESTORED_ANNOTATION,
    RETRY_ANNOTATION,
    REVISION_LABEL,
    ROLLBACK_ANNOTATION,
    SERVICE_ACCOUNT_LABEL,
    TAKEN_ANNOTATION,
)
from noderuntime_operator.api.noderuntime import NodeRuntimeSpec
from noderuntime_operator.api.revision import Revision
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.cluster_state import (
    AgentPodView,
    ClusterState,
    DaemonSetView,
    ImagePullView,
    InstanceView,
    NodeView,
    OtherAgentsView,
    PodView,
    RevisionView,
    RuntimeClassView,
    RuntimeView,
)
from noderuntime_operator.desired import MANAGED_BY, MANAGER, daemon_set_name
from noderuntime_operator.informer import Informer
from noderuntime_operator.kube import FIELD_MANAGER, Kube
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.pods import Pods
from noderuntime_operator.rollout import agents_to_search, nodes_to_search
from noderuntime_operator.settings import AgentSettings

Body = Mapping[str, Any]
View = TypeVar("View")
Validated = TypeVar("Validated", bound=Model)
Index = Mapping[str, Collection[View]]
"""A kopf index by name, with one view per name."""

AGENTS = "app.kubernetes.io/component=agent"
"""Selects the agents' pods."""

_PULL_FAILURES = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_FINISHED = frozenset({"Succeeded", "Failed"})
_RETRY_LIMIT = 256
"""FailedRevision.retry holds no more of the annotation."""
_PERHAPS_OURS = (FIELD_MANAGER, "ancient-changes")


@dataclass(frozen=True)
class Caches:
    """What the watches keep up to date: NodeRuntimes in kopf's index, the other kinds in informers."""

    runtimes: Index[RuntimeView]
    nodes: Informer[NodeView]
    instances: Informer[InstanceView]
    runtime_classes: Informer[RuntimeClassView]
    daemon_sets: Informer[DaemonSetView]
    agent_pods: Informer[AgentPodView]
    pods: Pods

    @classmethod
    def over(cls, kube: Kube, runtimes: Index[RuntimeView], metrics: Metrics) -> Self:
        """Return empty caches of what the client can read."""
        managed = f"{MANAGED_BY}={MANAGER}"
        agents = f"{managed},{AGENTS}"
        return cls(
            runtimes,
            Informer(kube, "Node", node_view, metrics),
            Informer(kube, "NodeRuntimeInstance", instance_view, metrics),
            Informer(kube, "RuntimeClass", runtime_class_view, metrics),
            Informer(kube, "DaemonSet", daemon_set_view, metrics, label_selector=managed),
            Informer(kube, "AgentPod", agent_pod_view, metrics, label_selector=agents),
            Pods(kube, pod_view, metrics),
        )

    @property
    def informers(self) -> tuple[Informer[Any], ...]:
        """The informers."""
        return (self.nodes, self.instances, self.runtime_classes, self.daemon_sets, self.agent_pods)

    def sizes(self) -> dict[str, int]:
        """Return the number of cached objects by kind."""
        return {"NodeRuntime": len(self.runtimes)} | {i.kind: len(i.views) for i in self.informers}

    @property
    def are_complete(self) -> bool:
        """Whether each cache holds all objects of its kind: only then an absent object does not exist."""
        return all(informer.synced.is_set() for informer in self.informers)


async def observe(kube: Kube, caches: Caches, runtime: RuntimeView, agent: AgentSettings) -> ClusterState:
    """Return the state of the cluster, with the pods that matter to one NodeRuntime."""
    account = await kube.get("ServiceAccount", agent.service_account)
    stored = kube.list("ControllerRevision", label_selector=f"{OWNER_LABEL}={runtime.name},{REVISION_LABEL}")
    cluster = ClusterState(
        nodes=dict(caches.nodes.views),
        instances=dict(caches.instances.views),
        runtime_classes=dict(caches.runtime_classes.views),
        daemon_sets=dict(caches.daemon_sets.views),
        now=datetime.now(UTC),
        outage=_outage(caches.instances),
        agent_image=agent.image,
        service_account=account["metadata"]["uid"] if account else "",
        other_agents=await _other_agents(kube, runtime, agent.namespace),
        revisions={view.name: view async for body in stored if (view := revision_view(body))},
    )
    nodes = nodes_to_search(runtime, cluster)
    agents = [pod for pod in caches.agent_pods.views.values() if pod.runtime == runtime.name]
    return replace(
        cluster,
        pods=tuple(await caches.pods.on(nodes)),
        agent_pods=tuple(_in_question(agents, runtime, cluster)),
        searched=nodes,
    )


def _outage(informer: Informer[InstanceView]) -> tuple[datetime, datetime] | None:
    """Return the begin and end of the last outage that the informer has seen."""
    if informer.outage is None:
        return None
    began, ended = informer.outage
    start = datetime.now(UTC) - timedelta(seconds=asyncio.get_running_loop().time())
    return start + timedelta(seconds=began), start + timedelta(seconds=ended)


def _in_question(
    agents: Iterable[AgentPodView], runtime: RuntimeView, cluster: ClusterState
) -> Iterator[AgentPodView]:
    """Yield the agents' pods that must perhaps be replaced."""
    nodes = agents_to_search(runtime, cluster)
    for pod in agents:
        is_lost = bool(cluster.service_account) and pod.service_account not in ("", cluster.service_account)
        if pod.node in nodes or is_lost or pod.pull:
            yield pod


async def _other_agents(kube: Kube, runtime: RuntimeView, namespace: str) -> tuple[OtherAgentsView, ...]:
    """Return the DaemonSets of this NodeRuntime's agents in other namespaces."""
    label = f"{MANAGED_BY}={MANAGER},{OWNER_LABEL}={runtime.name}"
    metas = [body["metadata"] async for body in kube.list("AnyDaemonSet", label_selector=label)]
    others = (meta for meta in metas if meta["namespace"] != namespace)
    return tuple(OtherAgentsView(meta["namespace"], meta["name"], meta["uid"]) for meta in others)


def starting_agents(runtime: RuntimeView, cluster: ClusterState) -> int:
    """Return the number of agents that should run and are not Ready."""
    found = cluster.daemon_sets.get(daemon_set_name(runtime.name))
    return found.unavailable if found else 0


def runtime_view(body: Body) -> RuntimeView:
    """Return the view of a NodeRuntime."""
    meta = body["metadata"]
    annotations = meta.get("annotations") or {}
    return RuntimeView(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        generation=meta["generation"],
        deleting="deletionTimestamp" in meta,
        finalizers=tuple(meta.get("finalizers", ())),
        spec=NodeRuntimeSpec.model_validate(dict(body["spec"])),
        status=NodeRuntimeStatus.model_validate(dict(body.get("status") or {})),
        retry=annotations.get(RETRY_ANNOTATION, "")[:_RETRY_LIMIT],
        rollback_to=annotations.get(ROLLBACK_ANNOTATION, ""),
    )


def revision_view(body: Body) -> RevisionView | None:
    """Return the view of a ControllerRevision, or None if this version cannot read it."""
    try:
        revision = Revision.model_validate(body["data"])
    except ValidationError:
        return None
    return RevisionView(body["metadata"]["name"], revision, body["revision"])


def agent_pod_view(body: Body) -> AgentPodView:
    """Return the view of an agent's pod."""
    meta, spec = body["metadata"], body["spec"]
    labels = meta.get("labels") or {}
    return AgentPodView(
        name=meta["name"],
        uid=meta["uid"],
        node=spec.get("nodeName", ""),
        image=_agent_image(spec["containers"]),
        service_account=labels.get(SERVICE_ACCOUNT_LABEL, ""),
        runtime=labels.get(OWNER_LABEL, ""),
        pull=image_pull_view(body),
        resource_version=meta["resourceVersion"],
    )


def _agent_image(containers: Sequence[Body]) -> str:
    """Return the image that an agent was made for: a webhook can have rewritten it, or added containers."""
    container = next((found for found in containers if found.get("name") == "agent"), containers[0])
    env = {variable["name"]: variable.get("value") for variable in container.get("env") or ()}
    return str(env.get("NODERUNTIME_IMAGE") or container["image"])


def node_view(body: Body) -> NodeView:
    """Return the view of a Node."""
    meta = body["metadata"]
    conditions = (body.get("status") or {}).get("conditions") or ()
    ready: dict[str, str] = next((c for c in conditions if c["type"] == "Ready"), {})
    return NodeView(
        name=meta["name"],
        uid=meta["uid"],
        labels={intern(key): intern(value) for key, value in (meta.get("labels") or {}).items()},
        ready=ready.get("status") == "True",
        since=_time(ready.get("lastTransitionTime")),
        resource_version=meta["resourceVersion"],
        unschedulable=bool((body.get("spec") or {}).get("unschedulable")),
        foreign_handlers=_foreign_handlers(meta.get("managedFields") or ()),
    )


def _foreign_handlers(managed: Iterable[Body]) -> frozenset[str]:
    """Return the handlers whose labels belong to other clients only.

    The API server forgets the name of an old client if there are many; that one is perhaps the operator.
    """
    prefix = f"f:{HANDLER_LABEL_PREFIX}"
    ours: set[str] = set()
    others: set[str] = set()
    for entry in managed:
        labels = (((entry.get("fieldsV1") or {}).get("f:metadata") or {}).get("f:labels") or {}).keys()
        found = others if entry.get("manager") not in _PERHAPS_OURS else ours
        found |= {label.removeprefix(prefix) for label in labels if label.startswith(prefix)}
    return frozenset(others - ours)


def instance_view(body: Body) -> InstanceView:
    """Return the view of a NodeRuntimeInstance, without upstreamSocket: users own that field."""
    meta, status = body["metadata"], dict(body.get("status") or {})
    annotations = meta.get("annotations") or {}
    heartbeat = status.pop("lastHeartbeatTime", None)
    created = _time(meta["creationTimestamp"])
    assert created is not None, "the API server sets it"  # noqa: S101 - for the type checker
    return InstanceView(
        name=meta["name"],
        generation=meta["generation"],
        created=created,
        spec=_instance_spec(body["spec"]),
        status=_instance_status(status),
        restored=RESTORED_ANNOTATION in annotations,
        node_uid=next((o["uid"] for o in meta.get("ownerReferences") or () if o["kind"] == "Node"), ""),
        taken=_annotated_time(annotations.get(TAKEN_ANNOTATION)),
        failed_before=BEFORE_ANNOTATION in annotations,
        retry=annotations.get(RETRY_ANNOTATION, ""),
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        heartbeat=_time(heartbeat),
    )


def _instance_spec(raw: Body) -> InstanceSpec:
    """Return an instance's spec, which shares all but the node's name with equal specs."""
    own = {"nodeName", "upstreamSocket"}
    shared = _validated(InstanceSpec, {"nodeName": "any"} | {k: v for k, v in raw.items() if k not in own})
    return shared.model_copy(update={"node_name": raw["nodeName"]})


def _instance_status(raw: Body) -> InstanceStatus:
    """Return an agent's report, which shares its parts with equal reports."""
    handlers = [{k: v for k, v in h.items() if k != "lastProbeTime"} for h in raw.get("handlers") or ()]
    rest = {key: value for key, value in raw.items() if key != "conditions"}
    shared = _validated(InstanceStatus, rest | ({"handlers": handlers} if "handlers" in raw else {}))
    if "conditions" not in raw:
        return shared
    conditions = [_validated(Condition, condition) for condition in raw["conditions"]]
    return shared.model_copy(update={"conditions": conditions})


def _validated(model: type[Validated], raw: Body) -> Validated:
    """Return the model of some JSON; equal JSON gives the same object."""
    return cast(Validated, _parse(model, json.dumps(raw, sort_keys=True)))


@lru_cache(maxsize=4096)
def _parse(model: type[Model], text: str) -> Model:
    return model.model_validate_json(text)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _annotated_time(text: str | None) -> datetime | None:
    """Return the time in an annotation, which the API server does not check; None if it has another form."""
    try:
        found = _time(text)
    except ValueError:
        return None
    return found if found and found.tzinfo else None


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
        resource_version=meta["resourceVersion"],
    )


def daemon_set_view(body: Body) -> DaemonSetView:
    """Return the view of a DaemonSet of agents."""
    meta, status = body["metadata"], body.get("status") or {}
    wanted, updated = status.get("desiredNumberScheduled") or 0, status.get("updatedNumberScheduled") or 0
    return DaemonSetView(
        name=meta["name"],
        owner=(meta.get("labels") or {}).get(OWNER_LABEL, ""),
        unavailable=status.get("numberUnavailable") or 0,
        outdated=max(0, wanted - updated),
        uid=meta["uid"],
        generation=meta["generation"],
        resource_version=meta["resourceVersion"],
    )


def image_pull_view(body: Body) -> ImagePullView | None:
    """Return the failed pull of an agent's pod, or None."""
    statuses = (body.get("status") or {}).get("containerStatuses") or ()
    for found in statuses:
        waiting = (found.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _PULL_FAILURES:
            return ImagePullView(
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
        resource_version=meta["resourceVersion"],
    )
