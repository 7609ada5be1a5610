"""A cluster of several nodes with noderuntime and pods: its upgrades, and what must hold afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from harness.cluster import Cluster
from harness.kubectl import Manifest
from harness.node import Node
from harness.run import wait_for
from harness.versions import Edits, other_image
from harness.watch import Seen, watched
from story import cri, steps
from story.manifests import COUNT_AND_SERVE, noderuntime, web_pod

KINDS: dict[str, str | None] = {steps.ORDINARY: None, "runc": "runc", "gvisor": "gvisor"}
"""The RuntimeClass of each node's pods by the prefix of their names."""
SOAK_SECONDS = 5
UPDATE = {"maxUnavailable": 1, "canary": {"nodes": 1, "soakSeconds": SOAK_SECONDS}, "rollback": "Automatic"}
"""The update of the NodeRuntime: a canary node, then one node at a time."""

Status = dict[str, Any]


@dataclass(frozen=True)
class Version:
    """An image of the project, and the digest of the bundle in it."""

    image: str
    digest: str


class Fleet:
    """The nodes of a cluster on which noderuntime is installed, and the version that they must have."""

    def __init__(self, cluster: Cluster, image: str) -> None:
        self.cluster = cluster
        self.kubectl = cluster.kubectl
        self.version = Version(image, "")

    @property
    def nodes(self) -> list[Node]:
        """The nodes, oldest first."""
        return self.cluster.nodes()

    def boot(self, count: int) -> None:
        """Boot nodes one after the other until there are count, and wait until all are Ready."""
        self.cluster.up()
        while len(self.nodes) < count:
            self.cluster.add_node()
        for node in self.nodes:
            self.kubectl.wait_node_ready(node.name)

    def install(self, **spec: object) -> None:
        """Install the chart and a NodeRuntime with these fields, and wait until every node is Ready."""
        steps.install_chart(self.cluster, self.version.image)
        self.kubectl.apply(noderuntime(steps.RELEASE, **spec))
        steps.wait_ready(self.cluster, timeout=60 + 60 * len(self.nodes))
        digests = {self.instance(node.name)["bundleDigest"] for node in self.nodes}
        steps.expect(len(digests) == 1, f"the nodes have different versions: {digests}")
        self.version = Version(self.version.image, digests.pop())

    def start_pods(self, *kinds: str) -> None:
        """Start a pod of each kind, which counts and serves HTTP, on each node; wait until all are Ready."""
        names = {f"{kind}-{node.name}": (KINDS[kind], node.name) for kind in kinds for node in self.nodes}
        self.kubectl.apply(*(_pinned(name, *where) for name, where in names.items()))
        for name in names:
            self.kubectl.wait_pod_ready(name)

    def delete_pods(self, *kinds: str) -> None:
        """Delete the pods of these kinds, and wait until they are gone."""
        names = [f"{kind}-{node.name}" for kind in kinds for node in self.nodes]
        self.kubectl("delete", "pod", *names, "--ignore-not-found")

    def identities(self) -> dict[str, steps.Identity]:
        """Return the container and restart count of each pod, by name."""
        pods = self.kubectl.get("pods")["items"]
        return {pod["metadata"]["name"]: steps.identity_of(pod) for pod in pods}

    def other_version(self, digest: str, edits: Edits) -> Version:
        """Push an image with another version of the bundle and return it."""
        other = Version(f"{self.version.image.rpartition(':')[0]}:v{digest}", digest)
        other_image(f"{self.version.image.rpartition(':')[0]}:dev", other.image, digest, edits)
        return other

    def upgrade(self, version: Version) -> None:
        """Upgrade the chart to another version; do not wait for anything."""
        steps.upgrade_chart(self.cluster, version.image)

    def restore(self) -> None:
        """Install the fleet's version again if a test left another one, and wait until all is as it was."""
        if steps.chart_image(self.cluster) != self.version.image:
            self.upgrade(self.version)
        self.wait_settled()

    def instance(self, node: str) -> Status:
        """Return the status of a node's instance, with reason and message of its condition Ready."""
        found = self.kubectl.find("noderuntimeinstance", node) or {}
        status = found.get("status") or {}
        ready = _condition(status, "Ready")
        return {**status, "reason": ready.get("reason"), "message": ready.get("message")}

    def wait_instance(self, node: str, timeout: float = 200, **expected: object) -> Status:
        """Wait until fields of the status of a node's instance have these values."""

        def probe() -> Status | None:
            found = self.instance(node)
            return found if all(found.get(key) == value for key, value in expected.items()) else None

        return wait_for(f"{node}: {expected}", probe, timeout, every=1)

    def status(self) -> Status:
        """Return the status of the NodeRuntime."""
        found: Status = self.kubectl.get("noderuntime", steps.RELEASE).get("status") or {}
        return found

    def wait_condition(self, kind: str, text: str = "", status: str = "True", timeout: float = 120) -> Status:
        """Wait until a condition of the NodeRuntime has that status and contains the text; return it."""

        def probe() -> Status | None:
            found = _condition(self.status(), kind)
            words = f"{found.get('reason')}: {found.get('message')}"
            return found if found.get("status") == status and text in words else None

        return wait_for(f"condition {kind}={status} {text!r}", probe, timeout, every=1)

    def patch(self, spec: Manifest) -> None:
        """Merge fields into the NodeRuntime's spec."""
        patch = json.dumps({"spec": spec})
        self.kubectl("patch", "noderuntime", steps.RELEASE, "--type=merge", "--patch", patch)

    def wait_applied(self, node: Node, timeout: float = 180, **kubelet: object) -> None:
        """Wait until a node is Ready with these settings of its kubelet."""

        def probe() -> bool:
            found = self.kubectl.get("noderuntimeinstance", node.name)
            wanted = kubelet.items() <= found["spec"]["kubelet"].items()
            observed = found["status"].get("observedGeneration") == found["metadata"]["generation"]
            return bool(wanted and observed and found["status"]["phase"] == "Ready")

        wait_for(f"{node.name} with {kubelet}", probe, timeout, every=1)

    def wait_version(self, version: Version, timeout: float = 200) -> None:
        """Wait until every node is Ready on the version."""

        def probe() -> bool:
            states = [self.instance(node.name) for node in self.nodes]
            found = {(state.get("phase"), state.get("bundleDigest")) for state in states}
            return found == {("Ready", version.digest)}

        wait_for(f"all nodes Ready on {version.digest}", probe, timeout, every=1)

    def wait_changing(self) -> Node:
        """Wait until a node is being changed and return it."""

        def probe() -> Node | None:
            phases = ("Installing", "Switching")
            return next(
                (node for node in self.nodes if self.instance(node.name).get("phase") in phases), None
            )

        return wait_for("a node that changes", probe, timeout=120, every=0.2)

    def wait_first(self, version: Version) -> Node:
        """Wait until a node is Ready on the version and return it."""

        def is_done(node: Node) -> bool:
            found = self.instance(node.name)
            return (found.get("phase"), found.get("bundleDigest")) == ("Ready", version.digest)

        def probe() -> Node | None:
            return next((node for node in self.nodes if is_done(node)), None)

        return wait_for(f"a node on {version.digest}", probe, timeout=200, every=0.5)

    def wait_settled(self, version: Version | None = None, timeout: float = 300) -> None:
        """Wait until every node is Ready on the version, and the NodeRuntime's status says so."""
        version = self.version = version or self.version
        self.wait_version(version, timeout)
        wait_for("a status that says so", self._is_settled, timeout, every=1)

    def _is_settled(self) -> bool:
        status = self.status()
        counts = tuple(status.get(f"{what}Nodes") for what in ("desired", "ready", "updated"))
        conditions = {kind: _condition(status, kind).get("status") for kind in ("Ready", "Degraded")}
        return counts == (len(self.nodes),) * 3 and conditions == {"Ready": "True", "Degraded": "False"}

    def check_served(self) -> None:
        """Check on the nodes themselves that each runs the version which its instance reports."""
        for node in self.nodes:
            current = node.exec("readlink", "/opt/noderuntime/current").strip().rpartition("/")[2]
            steps.expect(current == self.version.digest, f"{node.name} runs {current}")
            with cri.connect(node, cri.NODERUNTIME) as runtime:
                steps.expect(cri.version(runtime) == "noderuntime", f"{node.name} does not serve")

    def check_logs(self) -> None:
        """Check that the counting pods have lost no line of their logs."""
        for pod in self.identities():
            lines = [int(line) for line in self.kubectl("logs", pod).split()]
            complete = lines == list(range(1, len(lines) + 1))
            steps.expect(bool(lines) and complete, f"lines of {pod}'s log are missing: {lines}")

    def check_connections(self) -> None:
        """Check that a pod of each kind is reached from another one on each node."""
        for node in self.nodes:
            pods = [f"{kind}-{node.name}" for kind in KINDS]
            for source, target in zip(pods, [*pods[1:], pods[0]], strict=True):
                address = self.kubectl.get("pod", target)["status"]["podIP"]
                body = steps.fetch(self.cluster, node, source, f"http://{address}/").strip()
                steps.expect(body == f"hello from {target}", f"{source} fetched from {target}: {body!r}")

    @contextmanager
    def without_socket(self) -> Iterator[Callable[[], dict[str, float]]]:
        """Observe all nodes; yield a function that returns the longest seconds without a socket by node."""
        with ExitStack() as stack:
            longest = {
                node.name: stack.enter_context(cri.watched(node, cri.NODERUNTIME)) for node in self.nodes
            }
            yield lambda: {name: round(seconds(), 2) for name, seconds in longest.items()}

    @contextmanager
    def versions_watched(self) -> Iterator[list[Seen]]:
        """Observe the instances; yield the growing list of (node, digest, phase)."""
        paths = (".metadata.name", ".status.bundleDigest", ".status.phase")
        with watched(self.kubectl, "noderuntimeinstances", *paths) as seen:
            yield seen

    @contextmanager
    def nodes_watched(self) -> Iterator[list[Seen]]:
        """Observe the nodes; yield the growing list of (node, status of Ready, message)."""
        ready = '.status.conditions[?(@.type=="Ready")]'
        with watched(self.kubectl, "nodes", ".metadata.name", f"{ready}.status", f"{ready}.message") as seen:
            yield seen


def _pinned(name: str, runtime_class: str | None, node: str) -> Manifest:
    """Return a pod that counts in its log and serves HTTP, for one node."""
    pod = web_pod(name, runtime_class, script=COUNT_AND_SERVE)
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    return pod


def _condition(status: Status, kind: str) -> Status:
    conditions: list[Status] = status.get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), {})
