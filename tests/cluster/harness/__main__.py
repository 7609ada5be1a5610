"""``python -m harness up|down|status|shell NAME``: manage a cluster by hand."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from harness.cluster import Cluster


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="harness", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "status", "shell"))
    parser.add_argument("name", nargs="?", default="work")
    parser.add_argument("--style", choices=("FlagsFile", "ConfigFile", "DropIn"), default="FlagsFile")
    parser.add_argument("--bundle", type=Path, help="boot the node with noderuntime as its only runtime")
    chosen = parser.parse_args()
    cluster = Cluster(chosen.name)
    if chosen.verb == "down":
        cluster.down()
        return _report_leftovers(cluster)
    if chosen.verb == "shell":
        return cluster.nodes()[0].shell()
    if chosen.verb == "up":
        began = time.monotonic()
        cluster.up()
        node = (
            cluster.nodes()
            or [cluster.add_node(style=chosen.style, bundle=chosen.bundle and chosen.bundle.resolve())]
        )[0]
        node.start()
        cluster.kubectl.wait_node_ready(node.name)
        print(f"{node.name} is Ready after {time.monotonic() - began:.1f} s")
    print(f"export KUBECONFIG={cluster.control.kubeconfig}")
    for node in cluster.nodes():
        print(f"{node.name} {node.ip} {'runs' if node.is_running() else 'is down'}: {node.directory}")
    return 0


def _report_leftovers(cluster: Cluster) -> int:
    left = cluster.leftovers()
    print("\n".join(left) or f"nothing of cluster {cluster.name} is left")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
