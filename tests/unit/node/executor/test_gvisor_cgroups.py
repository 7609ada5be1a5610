"""The path of a sandbox's cgroup: the one that statistics use, whether runsc or systemd creates it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from noderuntime.node.executor.gvisor import GvisorExecutor
from noderuntime.node.host.cgroup_names import container_cgroup, oci_cgroups_path, pod_cgroup
from noderuntime.node.host.linux import LinuxHost

_ID = "5b" * 32
_SLICE = "kubepods-burstable-pod1_2.slice"


class Node(LinuxHost):
    """A host with a given cgroup version."""

    def __init__(self, version: Literal[1, 2]) -> None:
        super().__init__()
        self._version = version

    def cgroup_version(self) -> Literal[1, 2]:
        return self._version


def _adapted(tmp_path: Path, version: Literal[1, 2]) -> tuple[GvisorExecutor, str]:
    executor = GvisorExecutor(
        "gvisor", Node(version), Path("runsc"), tmp_path, Path("busybox"), systemd_cgroup=True
    )
    path = oci_cgroups_path(pod_cgroup(_SLICE, _ID, "systemd"), _ID, "systemd")
    spec: dict[str, Any] = {"process": {}, "linux": {"cgroupsPath": path, "namespaces": []}}
    executor.adapt_spec(spec, _ID, is_root=True)
    return executor, spec["linux"]["cgroupsPath"]


def test_runsc_creates_the_cgroup_in_the_slice_on_cgroup_v1(tmp_path: Path) -> None:
    executor, path = _adapted(tmp_path, 1)
    assert path == container_cgroup(pod_cgroup(_SLICE, _ID, "systemd"), _ID, "systemd")
    assert "--systemd-cgroup" not in executor.monitor_runtime(_ID, _ID, is_root=True).flags


def test_systemd_creates_the_cgroup_on_cgroup_v2(tmp_path: Path) -> None:
    executor, path = _adapted(tmp_path, 2)
    assert path == f"{_SLICE}:noderuntime:{_ID}"
    assert "--systemd-cgroup" in executor.monitor_runtime(_ID, _ID, is_root=True).flags
