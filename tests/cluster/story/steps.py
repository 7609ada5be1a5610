"""The steps of the story. Each performs an action and raises StoryError if the result is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.cluster import Cluster
from harness.kubectl import Manifest
from harness.node import Node
from harness.nodefiles import EndpointStyle
from harness.paths import REPO, tool
from harness.run import run, wait_for
from story import cri, traces
from story.manifests import service, web_pod

NAMESPACE = "noderuntime-system"
RELEASE = "noderuntime"
EXAMPLE = REPO / "examples" / "noderuntime.yaml"
AGENTS = "app.kubernetes.io/component=agent"
HANDLERS = ("runc", "gvisor")
"""RuntimeClasses of the example."""
RUNC = "noderuntime-runc"
"""The handler of the example's class runc."""
ORDINARY = "ordinary"


class StoryError(AssertionError):
    """The result of a step is wrong."""


@dataclass(frozen=True)
class Identity:
    """The identity of a pod's container: it changes with a restart."""

    container: str
    restarts: int


def expect(truth: object, message: str) -> None:
    """Raise StoryError if the condition is false (-O would remove an assert)."""
    if not truth:
        raise StoryError(message)


def build_image(cluster: Cluster) -> str:
    """Build the project's image, push it to the local registry, and return its reference."""
    cluster.directory.mkdir(parents=True, exist_ok=True)
    cluster.network.up()
    cluster.registry.up()
    image = f"{cluster.registry.address}/noderuntime:dev"
    run(sys.executable, str(REPO / "image/build.py"), "--image", image, "--push", "--tls-verify=false",
        timeout=1200)  # fmt: skip
    return image


def boot(cluster: Cluster, style: EndpointStyle = "FlagsFile") -> Node:
    """Boot a cluster of one node and wait until it is Ready."""
    cluster.up()
    node = (cluster.nodes() or [cluster.add_node(style=style)])[0]
    cluster.kubectl.wait_node_ready(node.name)
    return node


def start_pods(cluster: Cluster, pods: dict[str, str | None], timeout: float = 120) -> None:
    """Start a web pod and a Service for each name, of its RuntimeClass, and wait until all are Ready."""
    for name, runtime_class in pods.items():
        cluster.kubectl.apply(web_pod(name, runtime_class), service(name))
    for name in pods:
        cluster.kubectl.wait_pod_ready(name, timeout=timeout)


def identity(cluster: Cluster, pod: str) -> Identity:
    """Return the pod's container ID and restart count.

    The ID is without its scheme, which names the kubelet's runtime and changes with the switch.
    """
    return identity_of(cluster.kubectl.get("pod", pod))


def identity_of(pod: Manifest) -> Identity:
    """Return the container ID and restart count of a pod of one container."""
    status = pod["status"]["containerStatuses"][0]
    return Identity(status["containerID"].partition("://")[2], status["restartCount"])


def install(cluster: Cluster, image: str, timeout: float = 180) -> None:
    """Install the chart, apply the example and wait until the NodeRuntime is Ready."""
    install_chart(cluster, image)
    cluster.kubectl("apply", "-f", str(EXAMPLE))
    wait_ready(cluster, timeout)


def install_chart(cluster: Cluster, image: str, *options: str, namespace: str = NAMESPACE) -> None:
    """Install the chart with options of helm, and wait until the operator is running."""
    repository, _, tag = image.rpartition(":")
    _helm(cluster, "install", RELEASE, str(REPO / "charts/noderuntime"), "--namespace", namespace,
          "--create-namespace", "--set", f"image.repository={repository},image.tag={tag}",
          "--set", "image.pullPolicy=Always", "--wait", "--timeout", "120s", *options)  # fmt: skip


def upgrade_chart(cluster: Cluster, image: str) -> None:
    """Upgrade the chart to another image; do not wait for anything."""
    repository, _, tag = image.rpartition(":")
    _helm(cluster, "upgrade", RELEASE, str(REPO / "charts/noderuntime"), "--namespace", NAMESPACE,
          "--reuse-values", "--set", f"image.repository={repository},image.tag={tag}")  # fmt: skip


def uninstall_chart(cluster: Cluster, namespace: str = NAMESPACE) -> None:
    """Uninstall the chart, also while a NodeRuntime exists."""
    _helm(cluster, "uninstall", RELEASE, "--namespace", namespace, "--no-hooks", "--wait")


def chart_image(cluster: Cluster) -> str:
    """Return the image of the installed chart."""
    values = json.loads(
        _helm(cluster, "get", "values", RELEASE, "--namespace", NAMESPACE, "--output", "json")
    )
    return "{repository}:{tag}".format(**values["image"])


def roll_back_chart(cluster: Cluster) -> None:
    """Return to the previous revision of the chart."""
    _helm(cluster, "rollback", RELEASE, "--namespace", NAMESPACE)


def run_helm_test(cluster: Cluster) -> str:
    """Run ``helm test`` and return its output, with the log of the chart's test pod."""
    return _helm(cluster, "test", RELEASE, "--namespace", NAMESPACE, "--logs", "--timeout", "180s")


def uninstall_with_hooks(cluster: Cluster) -> str:
    """Uninstall the chart and return Helm's output. Raises CommandError with it if a hook refuses."""
    return _helm(cluster, "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "120s")


def wait_ready(cluster: Cluster, timeout: float = 180, name: str = RELEASE) -> None:
    """Wait until the NodeRuntime's condition Ready is True."""
    cluster.kubectl.wait_condition("noderuntime", name, "Ready", timeout=timeout)


def log_of(cluster: Cluster, pod: str) -> str:
    """Return the pod's log from kubectl."""
    return cluster.kubectl("logs", pod)


def fetch(cluster: Cluster, node: Node, source: str, url: str) -> str:
    """Return a URL's content, fetched in a pod by ExecSync through the node's CRI socket."""
    return cri.exec_sync(node, identity(cluster, source).container, "wget", "-qO-", url)


def check_connections(cluster: Cluster, node: Node, pods: list[str]) -> list[str]:
    """Fetch from every pod in every pod, by pod IP and by Service; return a line for each."""
    lines = []
    for target in pods:
        addresses = {
            "pod": cluster.kubectl.get("pod", target)["status"]["podIP"],
            "service": cluster.kubectl.get("service", target)["spec"]["clusterIP"],
        }
        for source in pods:
            for way, address in addresses.items():
                url, probe = f"http://{address}/", partial(_try_fetch, cluster, node, source)
                body = wait_for(f"{target} answers {source} on its {way} IP", partial(probe, url), timeout=20)
                expect(body == f"hello from {target}", f"{source} fetched from {target}, got {body!r}")
                lines.append(f"{source} -> {target} ({way} {address}): {body}")
    return lines


def _try_fetch(cluster: Cluster, node: Node, source: str, url: str) -> str | None:
    try:
        return fetch(cluster, node, source, url).strip()
    except RuntimeError:
        return None


def delete_blocked(cluster: Cluster, pods: list[str], name: str = RELEASE) -> str:
    """Delete the NodeRuntime while its pods run; return the condition's message, which names the pods."""
    cluster.kubectl("delete", "noderuntime", name, "--wait=false")

    def probe() -> str | None:
        found = cluster.kubectl.get("noderuntime", name)
        conditions = (found.get("status") or {}).get("conditions") or []
        held = [entry for entry in conditions if entry.get("reason") == "PodsStillRunning"]
        return held[0]["message"] if held else None

    message = wait_for("condition PodsStillRunning", probe, timeout=60)
    for pod in pods:
        expect(pod in message, f"the condition's message does not name {pod}: {message}")
    events = cluster.kubectl.get("events", "--all-namespaces")["items"]
    ours = [entry for entry in events if entry["reason"] == "PodsStillRunning"]
    expect(ours, "no event PodsStillRunning")
    return message


def delete_finishes(cluster: Cluster, node: Node, timeout: float = 180, name: str = RELEASE) -> None:
    """Wait until the NodeRuntime is deleted, the kubelet uses containerd again and nothing is left."""
    cluster.kubectl.wait_gone("noderuntime", name, timeout=timeout)
    check_nothing_left(cluster, node)


def check_nothing_left(cluster: Cluster, node: Node, timeout: float = 60) -> None:
    """Wait until nothing of noderuntime is left; the last pods may take a moment to end."""

    def probe() -> bool:
        left.clear()
        left.extend(traces.on_node(node) + traces.in_cluster(cluster.kubectl))
        return not left

    left: list[str] = []
    try:
        wait_for("nothing left", probe, timeout, every=1)
    except TimeoutError:
        raise StoryError("left behind:\n" + "\n".join(left)) from None
    runtime = cluster.kubectl.get("node", node.name)["status"]["nodeInfo"]["containerRuntimeVersion"]
    expect(runtime.startswith("containerd://"), f"the kubelet still talks to {runtime}")


def _helm(cluster: Cluster, *argv: str) -> str:
    return run(tool("helm"), f"--kubeconfig={cluster.control.kubeconfig}", *argv, timeout=240)


def save_logs(cluster: Cluster, directory: Path) -> None:
    """Write logs for the analysis of a failure: journals, events, pods, resources, the logs of pods."""
    directory.mkdir(parents=True, exist_ok=True)
    sources = {
        "pods.txt": ("get", "pods", "-A", "-o", "wide"),
        "events.txt": ("get", "events", "-A", "--sort-by=.metadata.creationTimestamp"),
        "describe.txt": ("describe", "pods", "-A"),
        "nodes.yaml": ("get", "nodes", "-o", "yaml"),
        "noderuntimes.yaml": ("get", "noderuntimes,noderuntimeinstances", "-o", "yaml"),
        "operator.log": ("logs", "-n", NAMESPACE, f"deployment/{RELEASE}-operator", "--tail=1000"),
        "agent.log": ("logs", "-n", NAMESPACE, "-l", AGENTS, "--tail=1000"),
    }
    for file, argv in sources.items():
        (directory / file).write_text(_attempt(partial(cluster.kubectl, *argv, timeout=20)))
    for node in cluster.nodes():
        journal = _attempt(partial(node.exec, "journalctl", "--no-pager", "-o", "short-precise"))
        (directory / f"{node.name}.journal").write_text(journal)


def _attempt(read: Callable[[], str]) -> str:
    try:
        return read()
    except Exception as error:
        return f"{error}\n"  # a failure to read one log must not hide the others
