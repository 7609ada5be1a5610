"""What a user reads and meets while something is being removed, or an image cannot be pulled."""

from __future__ import annotations

import json

import pytest
from control_plane import eventually
from release import NAMESPACE
from simulated import RUNTIME_LABEL, Cluster


@pytest.fixture
def serving(cluster: Cluster) -> Cluster:
    """The node u1 of the NodeRuntime u, with a proven handler."""
    cluster.node("u1", "u")
    cluster.runtime("u", "u")
    eventually(lambda: cluster.instance("u1"), "no instance")
    cluster.report("u1", "Ready", u_runc=("Ready", ""))
    eventually(lambda: cluster.has("u", "Ready", "True", "AllNodesReady"), "never Ready")
    return cluster


def test_deletion_rejects_new_pods_of_the_class(serving: Cluster) -> None:
    serving.pod("old", "u1", "u-runc")
    serving.plane.kubectl("delete", "nr", "u", "--wait=false")
    eventually(
        lambda: serving.plane.get("runtimeclass", "u-runc")["metadata"]["labels"].get(
            "noderuntime.dev/removing"
        ),
        "the class is not closed",
    )

    def refusal() -> str:
        arguments = ("--image=example.test/x", "--restart=Never", "--dry-run=server")
        override = '--overrides={"apiVersion":"v1","spec":{"runtimeClassName":"u-runc"}}'
        return serving.plane.kubectl("run", "new", *arguments, override, check=False)

    expected = "RuntimeClass u-runc is being removed with its handler or NodeRuntime; it takes no new pods"
    eventually(lambda: expected in refusal(), "a new pod of the class is accepted")
    ordinary = serving.plane.kubectl("run", "other", "--image=example.test/x", "--dry-run=server")
    assert "other created" in ordinary
    serving.delete_pod("old")
    eventually(lambda: not serving.plane.get("runtimeclass", "u-runc"), "the class is not deleted")


def test_deletion_names_a_node_that_is_off(serving: Cluster) -> None:
    serving.node("u2", "u")
    eventually(lambda: serving.instance("u2"), "no instance")
    serving.report("u2", "Ready", u_runc=("Ready", ""))
    eventually(lambda: serving.has("u", "Ready", "True", "AllNodesReady"), "never Ready")
    serving.set_ready("u1", ready=False)
    serving.plane.kubectl("delete", "nr", "u", "--wait=false")
    eventually(lambda: serving.instance("u2")["spec"]["state"] == "Removed", "the other node is held up")
    serving.report("u2", "Removed", kubelet="Upstream")
    eventually(lambda: not serving.instance("u2"), "the other node is not finished")
    eventually(
        lambda: serving.has("u", "Progressing", "True", "UnreachableNodes"), "the node is not named", 90
    )
    assert serving.condition("u", "Degraded")["message"].endswith("gives them up: u1")
    assert serving.plane.get("nr", "u")["status"]["unreachableNodes"] == 1
    serving.plane.kubectl("delete", "node", "u1")
    eventually(lambda: not serving.instance("u1"), "the instance of a deleted node stays")


def test_failed_image_pull_is_reported_within_a_minute(serving: Cluster) -> None:
    agents = ("-n", NAMESPACE, "-l", f"{RUNTIME_LABEL}=u")
    eventually(lambda: serving.plane.get("pods", "", *agents)["items"], "no agent's pod")
    (agent,) = serving.plane.get("pods", "", *agents)["items"]
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image: manifest unknown"}
    container = {
        "name": "agent",
        "image": "example.test/noderuntime:test",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": waiting},
    }
    name = agent["metadata"]["name"]
    serving.plane.kubectl(
        *("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p"),
        json.dumps({"status": {"phase": "Pending", "containerStatuses": [container]}}),
    )
    eventually(lambda: serving.has("u", "Degraded", "True", "AgentImagePull"), "the image is not named", 60)
    message = serving.condition("u", "Degraded")["message"]
    assert "example.test/noderuntime:test" in message
    assert "manifest unknown" in message
    assert serving.has("u", "Ready", "True", "AllNodesReady")
