"""A Kubernetes cluster on one machine: host processes as control plane, systemd containers as nodes.

It needs root and the programs that ``make setup`` installs, but no internet
access afterwards. All objects of a cluster have its name, so another process can
remove them and check that none is left.

    with Cluster("demo") as cluster:
        node = cluster.add_node()
        cluster.kubectl.wait_node_ready(node.name)
"""

from harness.cluster import Cluster
from harness.kubectl import Kubectl
from harness.node import Node
from harness.nodefiles import EndpointStyle

__all__ = ["Cluster", "EndpointStyle", "Kubectl", "Node"]
