"""Objects that pods can leave on a node."""

from __future__ import annotations

from harness.node import Node
from harness.run import wait_for
from noderuntime.cri.v1 import api_pb2 as pb
from story import cri

_MOUNTS = "cut -d' ' -f5 /proc/1/mountinfo | grep -E"
_OF_RUNNING = {
    "process": "pgrep -a 'conmon|runsc|catatonit'",
    "mount": f"{_MOUNTS} '/run/noderuntime/sandboxes/|/run/netns/|/var/lib/kubelet/pods/'",
    "network namespace": "ls /run/netns",
    "interface": "ip -o link | grep -o 'veth[^:]*'",
    "address": "ls /var/lib/cni/networks/bridge | grep '^10[.]'",
    "rule": "iptables-save | grep -E 'CNI-[0-9a-f]{16}|CNI-DN'",
    "cgroup": "find /sys/fs/cgroup -type d -path '*kubepods*' -name '*pod[0-9a-f]*'",
}
"""By kind: objects that do not exist after the pods are stopped."""
_RUN = "/run/noderuntime"
_OF_KNOWN = {
    "file": f"find {_RUN}/sandboxes {_RUN}/containers {_RUN}/exits {_RUN}/persist -mindepth 1 -maxdepth 1",
    "runtime state": f"find {_RUN}/runc {_RUN}/runsc -mindepth 1 -maxdepth 1",
    "root filesystem": f"{_MOUNTS} '/run/noderuntime/|/var/lib/noderuntime/'",
    "snapshot": "find /var/lib/noderuntime/images/snapshots -mindepth 1 -maxdepth 1",
    "result of CNI": "find /var/lib/cni/results -mindepth 1",
    "log": "find /var/log/pods /var/log/containers -mindepth 1",
}
"""By kind: objects that the kubelet removes within a minute, with the sandboxes of deleted pods."""


def nothing_runs(node: Node, timeout: float = 60) -> None:
    """Wait until no pod has a process, a mount or an address."""
    _wait_for_none(node, _OF_RUNNING, timeout)


def nothing_is_known(node: Node, timeout: float = 120) -> None:
    """Wait until nothing of any pod is left."""
    _wait_for_none(node, _OF_RUNNING | _OF_KNOWN, timeout)
    with cri.connect(node, cri.NODERUNTIME) as runtime:
        assert not cri.list_containers(runtime)
        assert not runtime.ListPodSandbox(pb.ListPodSandboxRequest(), timeout=10).items


def _wait_for_none(node: Node, searches: dict[str, str], timeout: float) -> None:
    left: list[str] = []

    def probe() -> bool:
        left[:] = _found(node, searches)
        return not left

    try:
        wait_for("nothing left", probe, timeout, every=1)
    except TimeoutError:
        raise AssertionError("left behind on the node:\n" + "\n".join(left)) from None


def _found(node: Node, searches: dict[str, str]) -> list[str]:
    """Run all searches at once; each line starts with its kind."""
    lines = [f"{{ {search}; }} 2>/dev/null | sed 's,^,{what}: ,'" for what, search in searches.items()]
    return node.exec("sh", "-c", "\n".join(lines)).splitlines()
