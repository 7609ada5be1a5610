"""Limits: CRI's container resources as OCI ``linux.resources``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.limits import check_limits


def oci_resources(limits: api_pb2.LinuxContainerResources, facts: HostFacts) -> dict[str, Any]:
    """Return what is limited; a zero or an empty text in CRI means "not set".

    Used for a new container and for UpdateContainerResources. Limits on huge pages of a node that
    does not account them are left out, as containerd leaves them.
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
            {"pageSize": one.page_size, "limit": one.limit} for one in limits.hugepage_limits
        ]
    if limits.unified and facts.cgroup_version != 2:
        raise InvalidArgument("unified resources need cgroup v2, which this node does not have")
    if unified := {**_swap(memory, facts), **limits.unified}:
        resources["unified"] = unified
    return resources


def oom_score_adj(wanted: int, facts: HostFacts) -> int:
    """Return a value that the kernel will take: without CAP_SYS_RESOURCE none below our own."""
    if not -1000 <= wanted <= 1000:
        raise InvalidArgument(f"oom_score_adj {wanted} is not between -1000 and 1000")
    return wanted if facts.may_lower_oom_score else max(wanted, facts.oom_score_adj)


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
    """Limit memory, and memory with swap to the same unless the pod may swap."""
    limit = limits.memory_limit_in_bytes
    memory = {"limit": limit} if limit else {}
    if facts.swap_accounting:
        swap = limits.memory_swap_limit_in_bytes or limit
        if swap:
            memory["swap"] = swap
    return memory


def _swap(memory: Mapping[str, int], facts: HostFacts) -> dict[str, str]:
    """Say in cgroup v2's own words how much may be swapped.

    From the two numbers alone runc tells the kernel that there is no swap, but not systemd, which takes it
    for unlimited and writes that at the next ``systemctl daemon-reload``.
    """
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if not facts.swap_file or (swap >= 0 and limit <= 0):
        return {}
    return {"memory.swap.max": "max" if swap < 0 else str(swap - limit)}
