"""A whole cluster: starting it, removing it, and checking that nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from harness import hostsysctl, images
from harness.controlplane import ControlPlane
from harness.kubectl import Kubectl
from harness.leftovers import leftovers
from harness.network import Network, free_index
from harness.node import Node
from harness.nodefiles import EndpointStyle
from harness.ocispec import remove_cgroups
from harness.paths import CLUSTERS, RUN
from harness.registry import Registry
from harness.run import wait_for
from harness.runtimes import RuntimeKind


class Cluster:
    """The cluster of that name; its state is in a directory, so any process can use it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = CLUSTERS / name
        self.network = Network(name, self._index())
        self.control = ControlPlane(self.directory / "control", self.network)
        self.registry = Registry(self.directory / "registry", self.network)
        self.kubectl = Kubectl(self.control.kubeconfig)

    def __enter__(self) -> Cluster:
        """Start everything except the nodes."""
        try:
            return self.up()
        except BaseException:
            self.down()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the cluster."""
        self.down()

    def up(self) -> Cluster:
        """Start what is not running: bridge, registry with the small images, control plane."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "index").write_text(str(self.network.index))
        hostsysctl.save(self.directory / "sysctl.json")
        self.network.up()
        self.registry.up()
        images.push_all(self.registry)
        self.control.up()
        wait_for("service account", lambda: self.kubectl.find("serviceaccount", "default"), timeout=30)
        return self

    def down(self) -> None:
        """Remove the cluster, also an incomplete one."""
        for node in self.nodes():
            node.remove()
        self.control.down()
        self.registry.down()
        self.network.down()
        remove_cgroups(f"/noderuntime/{self.name}")
        hostsysctl.restore(self.directory / "sysctl.json")
        for directory in (self.directory, RUN / self.name):
            shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            RUN.rmdir()

    def nodes(self) -> list[Node]:
        """Return the existing nodes, oldest first."""
        found = [json.loads(file.read_text()) for file in self.directory.glob("nodes/*/node.json")]
        return [
            self._node(entry["name"], entry["number"], entry["runtime"])
            for entry in sorted(found, key=_number)
        ]

    def add_node(
        self, name: str = "", style: EndpointStyle = "FlagsFile", bundle: Path | None = None
    ) -> Node:
        """Boot another node, which joins by itself, and add routes to its pods on the other nodes.

        With a bundle, noderuntime is its only runtime, else containerd.
        """
        others = self.nodes()
        number = max((node.number for node in others), default=0) + 1
        runtime: RuntimeKind = "Containerd" if bundle is None else "Noderuntime"
        node = self._node(name or f"node{number}", number, runtime)
        node.directory.mkdir(parents=True)
        known = {"name": node.name, "number": number, "runtime": runtime}
        (node.directory / "node.json").write_text(json.dumps(known))
        node.create(self.control, self.registry.address, style, bundle)
        node.start()
        for other in others:
            self.network.route_pods(other.name, number)
            self.network.route_pods(node.name, other.number)
        return node

    def remove_node(self, node: Node) -> None:
        """Remove a node from the machine and from the API."""
        node.remove()
        self.kubectl("delete", "node", node.name, "--ignore-not-found")

    def leftovers(self) -> list[str]:
        """Return a line for each object of this cluster that is still on the machine."""
        return leftovers(self.network, self.directory)

    def _node(self, name: str, number: int, runtime: RuntimeKind) -> Node:
        return Node(name, number, self.network, self.directory / "nodes" / name, runtime)

    def _index(self) -> int:
        file = self.directory / "index"
        return int(file.read_text()) if file.exists() else free_index()


def _number(entry: dict[str, Any]) -> int:
    return int(entry["number"])


def existing() -> list[Path]:
    """Return the directories of all existing clusters."""
    return sorted(CLUSTERS.glob("*")) if CLUSTERS.is_dir() else []
