"""What holds a removal: pods whose class is closed, nodes that are off; and images that cannot be pulled."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from builders import instance, node, pod, proven, runtime, runtime_class, spec, world

from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.cluster_state import AgentPodView, ClusterState, ImagePullView, RuntimeView
from noderuntime_operator.rollout import plan
from noderuntime_operator.status import status
from noderuntime_operator.views import image_pull_view, pod_view, runtime_class_view

REMOVING = "noderuntime.dev/removing"
GOING = runtime(deleting=True)


def status_of(wanted: RuntimeView, state: ClusterState) -> NodeRuntimeStatus:
    return status(wanted, state, plan(wanted, state), datetime(2026, 1, 2, tzinfo=UTC))


def condition(wanted: RuntimeView, state: ClusterState, kind: str) -> tuple[str, str, str]:
    (only,) = [c for c in status_of(wanted, state).conditions or () if c.type == kind]
    return only.status, only.reason, only.message


def body(**spec: Any) -> dict[str, Any]:
    labels = {"noderuntime.dev/runtime": "rt"}
    meta = {"name": "web-1", "namespace": "shop", "resourceVersion": "1", "uid": "u", "labels": labels}
    return {"metadata": meta, "spec": {"nodeName": "n1", "runtimeClassName": "runc", **spec}}


def test_deletion_closes_the_class_before_pods_are_gone() -> None:
    held = (node("n1", "runc"), instance("n1", handlers=proven("runc")), pod())
    found = plan(GOING, world(*held, runtime_class()))
    assert (found.class_labels, found.delete_classes) == ({"runc": {REMOVING: "true"}}, ())
    assert plan(GOING, world(*held, runtime_class(removing=True))).class_labels == {}


def test_class_of_a_removed_handler_is_closed_while_pods_use_it() -> None:
    two = instance("n1", of=spec("runc", "gvisor"), handlers=proven("runc", "gvisor"))
    classes = (runtime_class(), runtime_class("gvisor", "gvisor"))
    found = plan(runtime(), world(node("n1", "runc", "gvisor"), two, *classes, pod(of="gvisor")))
    assert (found.class_labels, found.delete_classes) == ({"gvisor": {REMOVING: "true"}}, ())


def test_class_of_a_handler_that_returns_is_opened_again() -> None:
    found = plan(runtime(), world(runtime_class(removing=True)))
    assert found.class_labels == {"runc": {REMOVING: None}}
    meta = {"name": "a", "uid": "u", "resourceVersion": "1", "labels": {REMOVING: "true"}}
    view = runtime_class_view({"metadata": meta, "handler": "a"})
    assert view.removing


def test_pods_that_hold_a_removal_are_named_with_their_owner() -> None:
    owners = [
        {"kind": "Other", "name": "x"},
        {"kind": "ReplicaSet", "name": "web", "controller": True},
    ]
    view = pod_view({**body(), "metadata": {**body()["metadata"], "ownerReferences": owners}})
    assert str(view) == "shop/web-1 (of ReplicaSet web)"
    assert str(pod_view(body())) == "shop/web-1"


def test_deletion_names_unreachable_nodes_and_what_waits() -> None:
    off = node("n1", ready=False)
    gone = (off, instance("n1", generation=2, state="Removed"))
    wait = "the removal waits for 1 unreachable nodes, until they are Ready"
    message = f"{wait}, their Node objects are deleted or spec.removal gives them up: n1"
    assert status_of(GOING, world(*gone)).unreachable_nodes == 1
    assert condition(GOING, world(*gone), "Progressing") == ("True", "UnreachableNodes", message)
    assert condition(GOING, world(*gone), "Degraded") == ("True", "UnreachableNodes", message)

    busy = (node("n2"), instance("n2", "Removing", state="Removed"))
    assert condition(GOING, world(*gone, *busy), "Progressing") == (
        "True",
        "Removing",
        f"removing noderuntime from nodes: n2; {message}",
    )


def test_deletion_names_at_most_ten_unreachable_nodes() -> None:
    names = [f"n{i:02}" for i in range(12)]
    off = [node(name, ready=False) for name in names]
    found = [instance(name, generation=2, state="Removed") for name in names]
    assert condition(GOING, world(*off, *found), "Degraded")[2].endswith("n09 and 2 more")


def test_deselected_node_that_is_off_is_named() -> None:
    left = (node("n1", pool="b", ready=False), instance("n1", generation=2, state="Removed"))
    found = status_of(runtime(), world(*left))
    assert [(f.name, f.reason) for f in found.failing_nodes or ()] == [("n1", "NodeNotReady")]
    assert (found.desired_nodes, found.unreachable_nodes) == (0, 1)


def test_nodes_that_are_off_do_not_hold_up_the_others() -> None:
    off = (node("n1", ready=False), instance("n1", generation=2, state="Removed"))
    found = plan(GOING, world(*off, node("n2"), instance("n2")))
    assert found.update["n2"].state == "Removed"
    # A node that went down during a change that its agent has read is one that the change broke.
    broken = (node("n1", ready=False), instance("n1", "Switching"))
    assert plan(runtime(), world(*broken, node("n2", claimed=None))).create == {}


def test_pods_on_a_node_that_is_off_hold_only_their_node() -> None:
    off = (node("n1", "runc", ready=False), instance("n1", handlers=proven("runc")), pod(on="n1"))
    free = (node("n2"), instance("n2"), runtime_class())
    found = plan(GOING, world(*off, *free))
    assert (list(found.update), found.labels, found.holding) == (["n2"], {}, ())
    assert (found.delete_classes, found.delete_daemon_set, found.finished) == ((), False, False)
    assert condition(GOING, world(*off), "Progressing")[1] == "UnreachableNodes"
    back = (node("n1", "runc"), *off[1:])
    assert plan(GOING, world(*back, *free)).holding == (pod(on="n1"),)


def test_failed_image_pull_is_reported_while_nodes_stay_ready() -> None:
    waiting = {"reason": "ErrImagePull", "message": "manifest\nunknown"}
    found = image_pull_view(
        {**body(), "status": {"containerStatuses": [{"image": "x:2", "state": {"waiting": waiting}}]}}
    )
    assert found == ImagePullView("n1", "x:2", "ErrImagePull", "manifest\nunknown")
    state = world(node("n1", "runc"), instance("n1", handlers=proven("runc")), runtime_class())
    pulling = replace(state, agent_pods=(AgentPodView("agent", "u", "n1", "x:2", pull=found),))
    assert condition(runtime(), pulling, "Ready")[:2] == ("True", "AllNodesReady")
    assert condition(runtime(), pulling, "Degraded") == (
        "True",
        "AgentImagePull",
        "the image x:2 of the agents cannot be pulled on 1 nodes: n1: ErrImagePull: manifest unknown",
    )


def test_container_that_is_created_is_no_failed_pull() -> None:
    waiting = {"reason": "ContainerCreating"}
    assert not image_pull_view(
        {**body(), "status": {"containerStatuses": [{"image": "x:2", "state": {"waiting": waiting}}]}}
    )
