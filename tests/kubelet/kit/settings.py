"""Temporary settings of a node's kubelet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.cluster import Cluster
from harness.node import Node
from harness.nodefiles import DROP_IN
from harness.run import wait_for

_FILE = "/" + DROP_IN.replace("10-runtime", "90-test")


@contextmanager
def kubelet_settings(cluster: Cluster, node: Node, **fields: Any) -> Iterator[None]:
    """Restart the kubelet with these fields of KubeletConfiguration, and without them at the end."""
    head = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
    before = _config(cluster, node)
    node.exec("sh", "-c", f"cat > {_FILE}", stdin=json.dumps(head | fields))
    try:
        _restart(cluster, node, before | fields)
        yield
    finally:
        node.exec("rm", _FILE)
        _restart(cluster, node, before)


def _restart(cluster: Cluster, node: Node, wanted: dict[str, Any]) -> None:
    node.systemctl("restart", "kubelet")
    wait_for("the kubelet's settings", lambda: _config(cluster, node) == wanted, timeout=30)
    cluster.kubectl.wait_node_ready(node.name)


def _config(cluster: Cluster, node: Node) -> dict[str, Any]:
    """Return the kubelet's effective configuration."""
    answer = cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node.name}/proxy/configz")
    found: dict[str, Any] = json.loads(answer)["kubeletconfig"]
    return found
