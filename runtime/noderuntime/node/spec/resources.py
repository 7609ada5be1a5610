"""Conversion of CRI's container resources to OCI ``linux.resources``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.limits import check_limits


def oci_resources(limits: api_pb2.LinuxContainerResources, facts: HostFacts) -> dict[str, Any]:
    """Return the limits that are set; in CRI, zero and an empty string mean "not set".

    Used by CreateContainer and UpdateContainerResources. Huge page limits are omitted if the
    node has no hugetlb controller, as containerd does.
    """
    check_limits(limits)
    resources: dict[str, Any] = {}
    if cpu := _cpu(limits):
        resources["cpu"] = cpu
    memory = _memory(limits, facts)
    if memory:
        resources["memory"] = memory
    if limits.hugepage_limits and "hugetlb" in facts.controllers:
        resources["hugepageLimits"] = [
            {"pageSize": page.page_size, "limit": page.limit} for page in limits.hugepage_limits
        ]
    if limits.unified and facts.cgroup_version != 2:
        raise InvalidArgument("unified resources require cgroup v2, but this node uses cgroup v1")
    if unified := {**_swap(memory, facts), **limits.unified}:
        resources["unified"] = unified
    return resources


def oom_score_adj(value: int, facts: HostFacts) -> int:
    """Return the value, raised to the daemon's own if the daemon cannot set a lower one."""
    if not -1000 <= value <= 1000:
        raise InvalidArgument(f"oom_score_adj {value} is not between -1000 and 1000")
    return value if facts.can_lower_oom_score else max(value, facts.oom_score_adj)


def _cpu(limits: api_pb2.LinuxContainerResources) -> dict[str, Any]:
    values = {
        "shares": limits.cpu_shares,
        "quota": limits.cpu_quota,
        "period": limits.cpu_period,
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
    }
    return {name: value for name, value in values.items() if value}


def _memory(limits: api_pb2.LinuxContainerResources, facts: HostFacts) -> dict[str, int]:
    """Return the memory limits. Without a swap limit, the sum of memory and swap gets the memory limit."""
    limit = limits.memory_limit_in_bytes
    memory = {"limit": limit} if limit else {}
    if facts.swap_accounting:
        swap = limits.memory_swap_limit_in_bytes or limit
        if swap:
            memory["swap"] = swap
    return memory


def _swap(memory: Mapping[str, int], facts: HostFacts) -> dict[str, str]:
    """Return the swap limit as a unified (cgroup v2) resource.

    From the two memory limits alone, runc limits swap in the kernel but not in systemd. systemd would
    then set swap to unlimited at the next ``systemctl daemon-reload``.
    """
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if not facts.has_swap_max or (swap >= 0 and limit <= 0):
        return {}
    return {"memory.swap.max": "max" if swap < 0 else str(swap - limit)}
