"""A Kubernetes cluster on one machine: host processes as control plane, systemd containers as nodes.

It needs root, the programs that ``make setup`` brings, and no internet once they
are there. Everything a cluster makes carries its name, so that it can be removed
from another process and its absence checked.

    with Cluster("demo") as cluster:
        node = cluster.add_node()
        cluster.kubectl.wait_node_ready(node.name)
"""

from harness.cluster import Cluster
from harness.kubectl import Kubectl
from harness.node import Node
from harness.nodefiles import EndpointStyle

__all__ = ["Cluster", "EndpointStyle", "Kubectl", "Node"]
