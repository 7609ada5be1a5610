"""``make demo``: run the whole story and print each step.

KEEP=1 leaves the cluster up; NODES=3 shows upgrades on three nodes instead of measurements on one.
"""

from __future__ import annotations

import os
import sys

from harness.cluster import Cluster
from harness.node import Node
from harness.paths import REPO
from story import cri, fleet_demo, steps
from story.measure import measure
from story.report import Report, say

BUILD = REPO / "build"
LOGS = BUILD / "demo-logs"


def main() -> int:
    """Run the story; print one line and return status 1 if it fails."""
    cluster, report, keep = Cluster("demo"), Report(), bool(os.environ.get("KEEP"))
    nodes = int(os.environ.get("NODES") or 1)
    cluster.down()
    try:
        if nodes == 1:
            run_story(cluster, report)
        else:
            fleet_demo.run(cluster, report, nodes)
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
    report.print_table(BUILD / "demo.json")
    left = _leave(cluster, keep)
    print(f"demo: left on the machine: {left}" if left else "demo: ok", flush=True)
    return 1 if left else 0


def run_story(cluster: Cluster, report: Report) -> None:
    """Run all steps of the story."""
    with report.step("the project's image, built and pushed to a local registry"):
        image = steps.build_image(cluster)
        say(image)
    with report.step("a cluster of one node, with stock containerd and no Python"):
        node = steps.boot(cluster)
        say(cluster.kubectl("get", "nodes", "-o", "wide"))
    with report.step("an ordinary pod on containerd"):
        steps.start_pods(cluster, {steps.ORDINARY: None})
        before = steps.identity(cluster, steps.ORDINARY)
        say(f"{steps.ORDINARY}: {before.container}")
    with report.step("helm install and kubectl apply -f examples/noderuntime.yaml"):
        steps.install(cluster, image)
        say(cluster.kubectl("get", "noderuntime", "-o", "wide"))
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
        say(f"{pod}: node IP {status['hostIP']}, pod IP {status['podIP']}")
        say(steps.log_of(cluster, pod))
    gvisor = steps.log_of(cluster, "gvisor")
    steps.expect("gVisor" in gvisor, f"the gvisor pod does not run on gVisor's kernel: {gvisor}")
    for line in steps.check_connections(cluster, node, pods):
        say(line)


def _untouched(cluster: Cluster, before: steps.Identity) -> None:
    after = steps.identity(cluster, steps.ORDINARY)
    steps.expect(after == before, f"the ordinary pod was restarted: {before} became {after}")
    say(f"{steps.ORDINARY}: {after.container}, restart count {after.restarts}")
    say(cluster.kubectl("get", "noderuntime,noderuntimeinstance", "-o", "wide"))
    for pod in (*steps.HANDLERS, steps.ORDINARY):
        say(f"kubectl logs {pod}:\n{steps.log_of(cluster, pod)}")


def _delete(cluster: Cluster, node: Node, before: steps.Identity) -> None:
    say(f"waiting: {steps.delete_blocked(cluster, list(steps.HANDLERS))}")
    cluster.kubectl("delete", "pod", *steps.HANDLERS)
    steps.delete_finishes(cluster, node)
    say(f"the kubelet uses {cri.CONTAINERD} again; nothing of noderuntime is left on the node or in the API:")
    say("files, units, mounts, network namespaces, cgroups, processes, snapshots, labels, RuntimeClasses")
    after = steps.identity(cluster, steps.ORDINARY)
    steps.expect(after == before, f"the ordinary pod was restarted: {before} became {after}")
    say(f"{steps.ORDINARY}: {after.container}, restart count {after.restarts}")


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


if __name__ == "__main__":
    sys.exit(main())
