"""Nodes and RuntimeClasses of a NodeRuntime that does not exist any more are taken over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from builders import instance, node, pod, proven, runtime, runtime_class, spec, world
from fakeapi import FakeApi

from noderuntime_operator.api.names import FINALIZER, HANDLER_LABEL_PREFIX, OWNER_LABEL, RESTORED_ANNOTATION
from noderuntime_operator.cluster_state import EPOCH, ClusterState, InstanceView, NodeView, PodView
from noderuntime_operator.kube import Kube, KubeError
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.observe import Caches
from noderuntime_operator.reconcile import Reconciler
from noderuntime_operator.rollout import nodes_to_search, plan
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.status import status

GROUP = "/apis/noderuntime.dev/v1alpha1"
CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


def left(*objects: NodeView | InstanceView | PodView) -> ClusterState:
    """A cluster in which the NodeRuntime old was deleted without its clean-up."""
    return replace(world(*objects), vanished=frozenset({"old"}))


def theirs(name: str = "n1", **more: Any) -> InstanceView:
    return instance(name, runtime_name="old", handlers=proven("runc"), **more)


def test_pods_hold_a_node_of_a_noderuntime_that_does_not_exist() -> None:
    state = left(node("n1", "runc", claimed="old"), theirs(), pod(on="n1"))
    assert nodes_to_search(runtime(), state) == {"n1"}
    found = plan(runtime(), state)
    assert (found.conflicts, found.labels, found.delete_instances) == ({"n1": "old"}, {}, ())
    assert (found.create, found.update) == ({}, {})
    (failing,) = status(runtime(), state, found, EPOCH).failing_nodes or ()
    assert failing.reason == "ClaimedByOther"
    assert failing.message == (
        "node n1 belongs to NodeRuntime old, which does not exist;"
        " the node is taken over after the end of its pods: default/user"
    )


def test_pods_of_its_own_handlers_hold_the_node_too() -> None:
    gone = instance("n1", of=spec("theirs"), runtime_name="old")
    found = plan(runtime(), left(node("n1", claimed="old"), gone, pod(on="n1", of="theirs")))
    assert (found.delete_instances, [str(held) for held in found.holding_takeover]) == ((), ["default/user"])


def test_empty_node_is_closed_then_freed_then_taken() -> None:
    closing = plan(runtime(), left(node("n1", "runc", claimed="old"), theirs()))
    assert closing.labels == {"n1": {HANDLER_LABEL_PREFIX + "runc": None}}
    assert (closing.delete_instances, closing.create) == ((), {})

    freeing = plan(runtime(), left(node("n1", claimed="old"), theirs()))
    assert (freeing.labels, freeing.delete_instances, freeing.create) == ({}, ("n1",), {})

    taking = plan(runtime(), left(node("n1", claimed="old")))
    assert (taking.conflicts, taking.delete_instances) == ({}, ())
    assert taking.create["n1"].runtime_name == "rt"

    claiming = plan(runtime(), world(node("n1", claimed="old"), instance("n1", None)))
    assert claiming.labels == {"n1": {OWNER_LABEL: "rt"}}


def test_nodes_are_taken_within_the_budget() -> None:
    free = [node(f"n{number}", claimed="old") for number in range(5)]
    assert len(plan(runtime(spec(limit=2)), left(*free)).create) == 2


def test_noderuntime_that_is_deleted_takes_nothing_over() -> None:
    going = runtime(deleting=True)
    state = left(node("n1", "runc", claimed="old"), theirs())
    found = plan(going, state)
    assert nodes_to_search(going, state) == frozenset()
    assert (found.labels, found.delete_instances, found.create) == ({}, (), {})


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    meta = {"generation": 1, "finalizers": [FINALIZER]}
    api.put(f"{GROUP}/noderuntimes", "rt", metadata=meta, spec=spec().dump())
    api.objects["/apis/apps/v1/namespaces/ns/controllerrevisions"] = {}
    api.objects["/apis/apps/v1/daemonsets"] = {}
    api.objects["/api/v1/pods"] = {}
    return api


async def reconcile(kube: Kube, nodes: Mapping[str, NodeView], *instances: InstanceView) -> None:
    """Reconcile once. kopf's index still has the other NodeRuntime."""
    caches = Caches.over(kube, {"rt": [runtime()], "old": [runtime(name="old")]}, Metrics())
    caches.nodes.views.update(nodes)
    caches.instances.views.update({found.name: found for found in instances})
    caches.runtime_classes.views["runc"] = runtime_class(owner="old")
    agent = AgentSettings(namespace="ns", image="i")
    await Reconciler(kube, caches, agent, lambda: True, Metrics()).reconcile("rt")


async def test_node_and_class_of_an_absent_noderuntime_are_taken(api: FakeApi, kube: Kube) -> None:
    await reconcile(kube, {"n1": node("n1", claimed="old")})
    made = api.objects[f"{GROUP}/noderuntimeinstances"]["n1"]
    assert made["spec"]["runtimeName"] == "rt"
    assert made["metadata"]["annotations"][RESTORED_ANNOTATION] == "true", "noderuntime is on the node"
    assert api.objects[CLASSES]["runc"]["metadata"]["labels"][OWNER_LABEL] == "rt"


async def test_node_of_an_existing_noderuntime_is_left_alone(api: FakeApi, kube: Kube) -> None:
    api.put(f"{GROUP}/noderuntimes", "old", spec=spec().dump())
    await reconcile(kube, {"n1": node("n1", "runc", claimed="old")}, theirs())
    written = {path.partition("?")[0] for method, path in api.requests if method != "GET"}
    assert not any("/nodes/" in path or "instances" in path or CLASSES in path for path in written)


async def test_nothing_is_taken_while_the_crd_does_not_exist(api: FakeApi, kube: Kube) -> None:
    api.refusals["GET", f"{GROUP}/noderuntimes"] = [404]
    with pytest.raises(KubeError):
        await reconcile(kube, {"n1": node("n1", claimed="old")}, theirs())
    assert {method for method, _ in api.requests} == {"GET"}
