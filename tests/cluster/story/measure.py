"""The figures of the demo's table, measured side by side on one node.

The kubelet is stopped meanwhile, because it would end pods that it did not start.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from harness.node import Node
from noderuntime.cri.v1 import api_pb2 as pb
from noderuntime.cri.v1.api_pb2_grpc import RuntimeServiceStub
from story import cri, steps
from story.manifests import IMAGE

ROUNDS = 10
PODS_FOR_MEMORY = 20
CALLS = 200
_PSS = "for p in $(pgrep -x 'conmon|pause|catatonit'); do grep ^Pss: /proc/$p/smaps_rollup; done"


def measure(node: Node, upstream_container: str) -> dict[str, float]:
    """Return the table's figures by name; each name contains its unit."""
    numbers: dict[str, float] = {}
    with _without_kubelet(node), ExitStack() as stack:
        theirs = stack.enter_context(cri.connect(node, cri.CONTAINERD))
        ours = stack.enter_context(cri.connect(node, cri.NODERUNTIME))
        numbers |= _pod_starts(theirs, ours)
        numbers |= _memory(node, ours)
        numbers |= _added_latency(theirs, ours, upstream_container)
    return numbers


@contextmanager
def _without_kubelet(node: Node) -> Iterator[None]:
    node.systemctl("stop", "kubelet")
    try:
        yield
    finally:
        node.systemctl("start", "kubelet")


def _pod_starts(theirs: RuntimeServiceStub, ours: RuntimeServiceStub) -> dict[str, float]:
    """Measure pod starts in turns, so that the machine's load affects both sides alike."""
    sides = {
        "containerd+runc": (theirs, ""),
        "ours+runc": (ours, steps.RUNC),
        "ours+gvisor": (ours, "gvisor"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, (runtime, handler) in sides.items():
            pod = cri.start_pod(runtime, IMAGE, handler)
            cri.remove_pod(runtime, pod)
            seconds[name].append(pod.seconds)
    return {f"pod start {name}, ms": 1000 * statistics.median(taken) for name, taken in seconds.items()}


def _memory(node: Node, ours: RuntimeServiceStub) -> dict[str, float]:
    before = _helpers_kib(node)
    pods = [cri.start_pod(ours, IMAGE, steps.RUNC) for _ in range(PODS_FOR_MEMORY)]
    try:
        daemon = int(node.systemctl("show", "-P", "MainPID", "noderuntime.service"))
        agents = node.exec("sh", "-c", "pgrep -f '[n]oderuntime agent' || true").split()
        return {
            f"daemon RSS with {PODS_FOR_MEMORY} pods, MiB": _rss_mib(node, daemon),
            "agent RSS, MiB": max((_rss_mib(node, int(pid)) for pid in agents), default=0.0),
            "helper processes' PSS per runc pod, MiB": (_helpers_kib(node) - before) / 1024 / PODS_FOR_MEMORY,
        }
    finally:
        for pod in pods:
            cri.remove_pod(ours, pod)


def _rss_mib(node: Node, pid: int) -> float:
    lines = node.exec("cat", f"/proc/{pid}/status").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def _helpers_kib(node: Node) -> int:
    return sum(int(line.split()[1]) for line in node.exec("sh", "-c", f"{_PSS}; true").splitlines())


def _added_latency(theirs: RuntimeServiceStub, ours: RuntimeServiceStub, container: str) -> dict[str, float]:
    """Return the added time of a status call for an upstream container, which passes through."""
    request = pb.ContainerStatusRequest(container_id=container)
    taken: dict[str, list[float]] = {"theirs": [], "ours": []}
    for _ in range(CALLS):
        taken["theirs"].append(_timed(lambda: theirs.ContainerStatus(request, timeout=10)))
        taken["ours"].append(_timed(lambda: ours.ContainerStatus(request, timeout=10)))
    added = statistics.median(taken["ours"]) - statistics.median(taken["theirs"])
    return {"added by pass-through to one RPC, ms": 1000 * added}


def _timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began
