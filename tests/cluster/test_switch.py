"""The switch of the kubelet and its reversal, for every style of kubelet configuration."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from conftest import World
from harness.node import Node
from harness.nodefiles import DROP_IN, FLAGS_FILE, KUBELET_CONFIG, EndpointStyle
from harness.run import wait_for
from story import steps
from story.manifests import noderuntime, web_pod

FILES = (FLAGS_FILE, KUBELET_CONFIG, DROP_IN)
_SABOTAGE = "/etc/systemd/system/kubelet.service.d/90-sabotage.conf"
_REFUSES_US = """[Service]
ExecStartPre=/bin/sh -c '! grep -q noderuntime /var/lib/kubelet/kubeadm-flags.env'
"""


def _files(node: Node) -> dict[str, str]:
    """Return the kubelet's current configuration."""
    return {path: node.exec("sh", "-c", f"cat /{path} 2>/dev/null; true") for path in FILES}


def _instance(world: World, node: Node) -> dict[str, Any]:
    found = world.cluster.kubectl.find("noderuntimeinstance", node.name) or {}
    return dict(found.get("status") or {})


@pytest.fixture(scope="module")
def nodes(world: World) -> dict[str, Node]:
    """One node per style of kubelet configuration."""
    others = [style for style in get_args(EndpointStyle) if style != "FlagsFile"]
    found = {"FlagsFile": world.node}
    for style in others:
        found[style] = world.cluster.add_node(style=style)
    for node in found.values():
        world.cluster.kubectl.wait_node_ready(node.name)
    return found


def test_switch_is_rolled_back_if_the_kubelet_stays_down(world: World) -> None:
    node, kubectl = world.node, world.cluster.kubectl
    steps.start_pods(world.cluster, {steps.ORDINARY: None})
    before, files = steps.identity(world.cluster, steps.ORDINARY), _files(node)
    node.exec("sh", "-c", f"mkdir -p $(dirname {_SABOTAGE}); cat > {_SABOTAGE}", stdin=_REFUSES_US)
    node.systemctl("daemon-reload")
    steps.install_chart(world.cluster, world.image)
    kubelet = {"mode": "Delegate", "switchTimeoutSeconds": 30}
    kubectl.apply(noderuntime(kubelet=kubelet))

    def failed() -> dict[str, Any] | None:
        status = _instance(world, node)
        return status if status.get("phase") == "Failed" else None

    status = wait_for("phase Failed", failed, timeout=180, every=1)
    assert "was rolled back" in str(status["conditions"])
    assert status["kubelet"]["state"] == "Upstream"
    assert _files(node) == files
    kubectl.wait_node_ready(node.name)
    degraded = kubectl.wait_condition("noderuntime", steps.RELEASE, "Degraded", timeout=60)
    assert node.name in degraded["message"]
    assert steps.identity(world.cluster, steps.ORDINARY) == before


def test_switch_is_retried_and_succeeds(world: World) -> None:
    world.node.exec("rm", _SABOTAGE)
    world.node.systemctl("daemon-reload")
    steps.wait_ready(world.cluster, timeout=240)


def test_switch_works_with_every_kubelet_configuration(world: World, nodes: dict[str, Node]) -> None:
    def switched() -> bool:
        seen = {style: _instance(world, node) for style, node in nodes.items()}
        return all(
            status.get("phase") == "Ready" and status["kubelet"]["configuredBy"] == style
            for style, status in seen.items()
        )

    wait_for("all nodes switched", switched, timeout=240, every=1)
    steps.wait_ready(world.cluster)


def test_pods_on_different_nodes_reach_each_other(world: World, nodes: dict[str, Node]) -> None:
    for node, (name, handler) in zip(
        nodes.values(), {"runc": "runc", "gvisor": "gvisor"}.items(), strict=False
    ):
        pod = web_pod(name, handler)
        pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node.name}
        world.cluster.kubectl.apply(pod)
        world.cluster.kubectl.wait_pod_ready(name)
    target = world.cluster.kubectl.get("pod", "gvisor")["status"]["podIP"]
    assert steps.fetch(world.cluster, world.node, "runc", f"http://{target}/").strip() == "hello from gvisor"


def test_deletion_restores_every_kubelet_configuration(world: World, nodes: dict[str, Node]) -> None:
    world.cluster.kubectl("delete", "pod", "runc", "gvisor")
    world.cluster.kubectl("delete", "noderuntime", steps.RELEASE, "--wait=false")
    for node in nodes.values():
        steps.delete_finishes(world.cluster, node)
        assert "noderuntime" not in str(_files(node))
