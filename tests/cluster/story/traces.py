"""Objects that noderuntime can leave on a node after its removal."""

from __future__ import annotations

from harness.kubectl import Kubectl
from harness.node import Node

_FILES = (
    "/opt/noderuntime /etc/noderuntime /run/noderuntime /var/lib/noderuntime "
    "/etc/systemd/system/*noderuntime* "
    "/etc/systemd/system/*/*noderuntime* /etc/kubernetes/kubelet.conf.d/*noderuntime*"
)
_SEARCHES = {
    "file": f"ls -d {_FILES}",
    "unit": "systemctl list-units --all --plain --no-legend '*noderuntime*'",
    "mount": "cut -d' ' -f5 /proc/1/mountinfo | grep noderuntime",
    "network namespace": "ls /run/netns | grep noderuntime",
    "cgroup": "find /sys/fs/cgroup -type d -name '*noderuntime*'",
    "process": "pgrep -a 'conmon|runsc' ; pgrep -af '[n]oderuntime' | grep -v noderuntime-operator",
    "snapshot": "ctr -n k8s.io snapshots ls | grep noderuntime",
    "lease": "ctr -n k8s.io leases ls | grep noderuntime",
    "kubelet setting": "grep -rl noderuntime /var/lib/kubelet/*.yaml /var/lib/kubelet/*.env /etc/kubernetes",
}


def on_node(node: Node) -> list[str]:
    """Return a line for each file, unit, mount, namespace, cgroup, process, snapshot and setting left."""
    found = []
    for what, search in _SEARCHES.items():
        lines = node.exec("sh", "-c", f"{search} 2>/dev/null; true").splitlines()
        found += [f"{what}: {line.strip()}" for line in lines if line.strip()]
    return found


def in_cluster(kubectl: Kubectl) -> list[str]:
    """Return a line for each label, taint, RuntimeClass, DaemonSet and instance that is left."""
    found = []
    for node in kubectl.get("nodes")["items"]:
        labels = [key for key in node["metadata"].get("labels", {}) if "noderuntime.dev" in key]
        taints = [
            taint["key"] for taint in node["spec"].get("taints", []) if "noderuntime.dev" in taint["key"]
        ]
        found += [f"node {node['metadata']['name']}: {key}" for key in labels + taints]
    for kind in ("runtimeclass", "daemonset", "noderuntime", "noderuntimeinstance"):
        listed = kubectl.find(kind, "--all-namespaces") or {"items": []}
        found += [f"{kind} {item['metadata']['name']}" for item in listed["items"]]
    return found
