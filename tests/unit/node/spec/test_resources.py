from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.update import merge
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.limits import check_limits
from noderuntime.node.spec.resources import oci_resources

Limits = api_pb2.LinuxContainerResources


def test_oci_resources_have_the_limits_that_are_set(facts: HostFacts) -> None:
    limits = api_pb2.LinuxContainerResources(
        cpu_shares=512, cpu_quota=-1, memory_limit_in_bytes=1 << 20, unified={"memory.high": "1"}
    )
    limits.hugepage_limits.add(page_size="2MB", limit=4)
    assert oci_resources(limits, facts) == {
        "cpu": {"shares": 512, "quota": -1},
        "memory": {"limit": 1 << 20, "swap": 1 << 20},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
        "unified": {"memory.high": "1"},
    }
    old = dataclasses.replace(facts, cgroup_version=1, controllers=frozenset(), swap_accounting=False)
    with pytest.raises(InvalidArgument, match="cgroup v2"):
        oci_resources(limits, old)
    limits.unified.clear()
    assert oci_resources(limits, old) == {"cpu": {"shares": 512, "quota": -1}, "memory": {"limit": 1 << 20}}
    assert oci_resources(api_pb2.LinuxContainerResources(), facts) == {}


def test_swap_limit_is_passed_on(facts: HostFacts) -> None:
    limits = Limits(memory_limit_in_bytes=5, memory_swap_limit_in_bytes=9, unified={"memory.swap.max": "4"})
    oci = oci_resources(limits, facts)
    assert (oci["memory"], oci["unified"]) == ({"limit": 5, "swap": 9}, {"memory.swap.max": "4"})
    limits.memory_swap_limit_in_bytes = -1
    assert oci_resources(limits, facts)["memory"] == {"limit": 5, "swap": -1}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(memory_limit_in_bytes=5), "0"),
        (Limits(memory_limit_in_bytes=5, memory_swap_limit_in_bytes=5), "0"),
        (Limits(memory_limit_in_bytes=5, memory_swap_limit_in_bytes=9), "4"),
        (Limits(memory_limit_in_bytes=5, memory_swap_limit_in_bytes=-1), "max"),
        (Limits(memory_limit_in_bytes=-1), "max"),
        (Limits(memory_limit_in_bytes=5, unified={"memory.swap.max": "1"}), "1"),
    ],
)
def test_swap_limit_is_set_as_a_unified_resource(facts: HostFacts, limits: Limits, expected: str) -> None:
    new = dataclasses.replace(facts, has_swap_max=True)
    assert oci_resources(limits, new)["unified"] == {"memory.swap.max": expected}
    assert "unified" not in oci_resources(Limits(cpu_shares=2), new)


def test_merge_of_a_memory_limit_drops_the_old_swap_limit() -> None:
    old = Limits(memory_limit_in_bytes=5, memory_swap_limit_in_bytes=9, cpu_shares=2)
    merged = merge(old, Limits(memory_limit_in_bytes=20))
    assert (merged.memory_limit_in_bytes, merged.memory_swap_limit_in_bytes, merged.cpu_shares) == (20, 0, 2)
    assert merge(old, Limits(cpu_shares=7)).memory_swap_limit_in_bytes == 9


def test_merge_of_unified_resources_is_by_key() -> None:
    merged = merge(Limits(unified={"a.b": "1", "c.d": "1"}), Limits(unified={"c.d": "2"}))
    assert dict(merged.unified) == {"a.b": "1", "c.d": "2"}


@pytest.mark.parametrize(
    "limits",
    [
        {"cpu_shares": -1},
        {"cpu_shares": 1},
        {"cpu_shares": 262_145},
        {"cpu_period": -1},
        {"cpu_period": 999},
        {"cpu_period": 1_000_001},
        {"cpu_quota": -2},
        {"cpu_quota": 999},
        {"cpu_quota": 1 << 44},
        {"memory_limit_in_bytes": -2},
        {"memory_swap_limit_in_bytes": -(1 << 63)},
        {"memory_limit_in_bytes": 2, "memory_swap_limit_in_bytes": 1},
        {"cpuset_cpus": "0-3; reboot"},
        {"cpuset_cpus": "1" * 5000},
        {"cpuset_mems": "../0"},
        {"hugepage_limits": [{"page_size": "../2MB", "limit": 1}]},
        {"hugepage_limits": [{"page_size": "", "limit": 1}]},
        {"unified": {"cgroup.procs": "1"}},
        {"unified": {"../memory.max": "1"}},
        {"unified": {"memory": "1"}},
        {"unified": {"memory.max": "1\0"}},
        {"unified": {"": "1"}},
    ],
)
def test_invalid_limit_is_refused(limits: dict[str, Any], facts: HostFacts) -> None:
    with pytest.raises(InvalidArgument):
        check_limits(Limits(**limits))
    with pytest.raises(InvalidArgument):
        oci_resources(Limits(**limits), facts)


def test_limits_of_the_kubelet_are_accepted() -> None:
    check_limits(
        Limits(
            cpu_quota=-1,
            cpuset_cpus="0,2-63",
            cpuset_mems="0-1",
            memory_limit_in_bytes=-1,
            memory_swap_limit_in_bytes=-1,
            hugepage_limits=[{"page_size": size} for size in ("64KB", "2MB", "1GB")],
            unified={"memory.swap.max": "0", "memory.high": "max", "hugetlb.2MB.max": "0"},
        )
    )
