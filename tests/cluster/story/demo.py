"""``make demo``: run the whole story and print each step. KEEP=1 leaves the cluster up."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.cluster import Cluster
from harness.node import Node
from harness.paths import REPO
from story import cri, steps
from story.measure import measure

BUILD = REPO / "build"
LOGS = BUILD / "demo-logs"


@dataclass
class Report:
    """The seconds per step, and the measured figures."""

    seconds: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print the title, and record the duration of the step."""
        print(f"\n== {len(self.seconds) + 1}. {title}", flush=True)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[title] = round(time.monotonic() - began, 1)

    def print_table(self) -> None:
        """Print all figures, and write them to build/demo.json."""
        rows = {f"{title}, s": value for title, value in self.seconds.items()} | self.numbers
        width = max(len(name) for name in rows)
        print("\n" + "\n".join(f"{name:<{width}}  {value:10.2f}" for name, value in rows.items()))
        BUILD.mkdir(exist_ok=True)
        content = {"seconds": self.seconds, "numbers": self.numbers}
        (BUILD / "demo.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> int:
    """Run the story; print one line and return status 1 if it fails."""
    cluster, report, keep = Cluster("demo"), Report(), bool(os.environ.get("KEEP"))
    cluster.down()
    try:
        run_story(cluster, report)
    except KeyboardInterrupt:
        _leave(cluster, keep)
        raise
    except Exception as error:
        steps.save_logs(cluster, LOGS)
        print(f"\n{error}\nlogs: {LOGS} and {cluster.directory}/control", flush=True)
        step = list(report.seconds)[-1] if report.seconds else "start"
        _leave(cluster, keep)
        print(f"demo: failed at {step!r}: {_one_line(error)}", flush=True)
        return 1
    report.print_table()
    left = _leave(cluster, keep)
    print(f"demo: left on the machine: {left}" if left else "demo: ok", flush=True)
    return 1 if left else 0


def run_story(cluster: Cluster, report: Report) -> None:
    """Run all steps of the story."""
    with report.step("the project's image, built and pushed to a local registry"):
        image = steps.build_image(cluster)
        _say(image)
    with report.step("a cluster of one node, with stock containerd and no Python"):
        node = steps.boot(cluster)
        _say(cluster.kubectl("get", "nodes", "-o", "wide"))
    with report.step("an ordinary pod on containerd"):
        steps.start_pods(cluster, {steps.ORDINARY: None})
        before = steps.identity(cluster, steps.ORDINARY)
        _say(f"{steps.ORDINARY}: {before.container}")
    with report.step("helm install and kubectl apply -f examples/noderuntime.yaml"):
        steps.install(cluster, image)
        _say(cluster.kubectl("get", "noderuntime", "-o", "wide"))
    with report.step("pods that select runc and gVisor by RuntimeClass"):
        _pods_of_ours(cluster, node)
    with report.step("the ordinary pod was not restarted"):
        _untouched(cluster, before)
    with report.step("measurements on the node's CRI sockets"):
        report.numbers = measure(node, before.container)
    with report.step("kubectl delete noderuntime"):
        _delete(cluster, node, before)


def _pods_of_ours(cluster: Cluster, node: Node) -> None:
    steps.start_pods(cluster, {handler: handler for handler in steps.HANDLERS})
    pods = [*steps.HANDLERS, steps.ORDINARY]
    for pod in pods:
        status = cluster.kubectl.get("pod", pod)["status"]
        _say(f"{pod}: node IP {status['hostIP']}, pod IP {status['podIP']}")
        _say(steps.log_of(cluster, pod))
    gvisor = steps.log_of(cluster, "gvisor")
    steps.expect("gVisor" in gvisor, f"the gvisor pod does not run on gVisor's kernel: {gvisor}")
    for line in steps.check_connections(cluster, node, pods):
        _say(line)


def _untouched(cluster: Cluster, before: steps.Identity) -> None:
    after = steps.identity(cluster, steps.ORDINARY)
    steps.expect(after == before, f"the ordinary pod was restarted: {before} became {after}")
    _say(f"{steps.ORDINARY}: {after.container}, restart count {after.restarts}")
    _say(cluster.kubectl("get", "noderuntime,noderuntimeinstance", "-o", "wide"))
    for pod in (*steps.HANDLERS, steps.ORDINARY):
        _say(f"kubectl logs {pod}:\n{steps.log_of(cluster, pod)}")


def _delete(cluster: Cluster, node: Node, before: steps.Identity) -> None:
    _say(f"waiting: {steps.delete_blocked(cluster, list(steps.HANDLERS))}")
    cluster.kubectl("delete", "pod", *steps.HANDLERS)
    steps.delete_finishes(cluster, node)
    _say(
        f"the kubelet uses {cri.CONTAINERD} again; nothing of noderuntime is left on the node or in the API:"
    )
    _say("files, units, mounts, network namespaces, cgroups, processes, snapshots, labels, RuntimeClasses")
    after = steps.identity(cluster, steps.ORDINARY)
    steps.expect(after == before, f"the ordinary pod was restarted: {before} became {after}")
    _say(f"{steps.ORDINARY}: {after.container}, restart count {after.restarts}")


def _leave(cluster: Cluster, keep: bool) -> list[str]:
    """Remove the cluster and return what is left of it, or print how to use it."""
    if keep:
        print(f"\nThe cluster is up:\n  export KUBECONFIG={cluster.control.kubeconfig}")
        print(
            f"  {sys.executable} -m harness shell demo   # a shell on its node, with PYTHONPATH=tests/cluster"
        )
        print("  make demo-down")
        return []
    cluster.down()
    return cluster.leftovers()


def _say(text: str) -> None:
    print("   " + text.strip().replace("\n", "\n   "), flush=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


if __name__ == "__main__":
    sys.exit(main())
