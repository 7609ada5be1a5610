from __future__ import annotations

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.host.cgroup_names import (
    container_cgroup,
    monitor_cgroup,
    oci_cgroups_path,
    pod_cgroup,
    slice_path,
)

ID = "a" * 64


def test_cgroupfs_paths_are_below_the_parent() -> None:
    pod = pod_cgroup("/kubepods/burstable/pod1", ID, "cgroupfs")
    assert pod == "/kubepods/burstable/pod1"
    assert container_cgroup(pod, ID, "cgroupfs") == oci_cgroups_path(pod, ID, "cgroupfs") == f"{pod}/{ID}"
    assert monitor_cgroup(pod) == f"{pod}/noderuntime-monitor"


def test_systemd_slices_are_nested_by_their_names() -> None:
    pod = pod_cgroup("kubepods-besteffort-pod1_2.slice", ID, "systemd")
    assert pod == "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice"
    assert container_cgroup(pod, ID, "systemd") == f"{pod}/noderuntime-{ID}.scope"
    assert oci_cgroups_path(pod, ID, "systemd") == f"kubepods-besteffort-pod1_2.slice:noderuntime:{ID}"


def test_pod_without_a_parent_gets_a_default_cgroup() -> None:
    assert pod_cgroup("", ID, "cgroupfs") == f"/noderuntime/{ID}"
    assert pod_cgroup("", ID, "systemd") == "/noderuntime.slice/noderuntime-aaaaaaaaaaaa.slice"


@pytest.mark.parametrize("parent", ["relative", "/a/../b", "/a\0", "/" + "a" * 2000])
def test_invalid_cgroupfs_parent_is_rejected(parent: str) -> None:
    with pytest.raises(InvalidArgument):
        pod_cgroup(parent, ID, "cgroupfs")


@pytest.mark.parametrize("name", ["a", "-.slice", "a--b.slice", "../x.slice", "a\0.slice", ".slice"])
def test_invalid_slice_name_is_rejected(name: str) -> None:
    with pytest.raises(InvalidArgument):
        slice_path(name)
