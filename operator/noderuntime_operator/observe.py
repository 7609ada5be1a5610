"""Observe the cluster: build a ClusterState from the caches and the API server.

The caches hold a view of every object, built when the object arrives. Nothing is reconciled before they are
complete, so a cache that is not yet filled is never taken for an empty one. Pods are too many to cache; they
are observed only when they matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar

from noderuntime_operator.api.names import OWNER_LABEL, REVISION_LABEL
from noderuntime_operator.cluster_state import (
    AgentPodView,
    ClusterState,
    DaemonSetView,
    InstanceView,
    NodeView,
    OtherAgentsView,
    RuntimeClassView,
    RuntimeView,
)
from noderuntime_operator.desired import MANAGED_BY, MANAGER, daemon_set_name
from noderuntime_operator.informer import Informer
from noderuntime_operator.kube import Kube
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.pods import Pods
from noderuntime_operator.rollout import agents_to_search, nodes_to_search, owners_in_question
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.views import (
    agent_pod_view,
    daemon_set_view,
    instance_view,
    node_view,
    revision_view,
    runtime_class_view,
)

View = TypeVar("View")
Index = Mapping[str, Collection[View]]
"""A kopf index by name, with one view per name."""

AGENTS = "app.kubernetes.io/component=agent"
"""Selects the agents' pods."""


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
            Pods(kube, metrics),
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
    cluster = replace(cluster, vanished=await _vanished(kube, owners_in_question(runtime, cluster)))
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


async def _vanished(kube: Kube, names: frozenset[str]) -> frozenset[str]:
    """Return those of the NodeRuntimes that the API server does not have; a cache can be incomplete.

    A list is refused while the CRD does not exist, where a single object would seem to be absent.
    """
    if not names:
        return names
    return names - {body["metadata"]["name"] async for body in kube.list("NodeRuntime")}


def starting_agents(runtime: RuntimeView, cluster: ClusterState) -> int:
    """Return the number of agents that should run and are not Ready."""
    found = cluster.daemon_sets.get(daemon_set_name(runtime.name))
    return found.unavailable if found else 0
