"""Names of cgroups: the kubelet's, those of the OCI spec, and their paths. Pure.

A *path* is absolute within a hierarchy (``/kubepods/burstable/podUID``), and the same in
all v1 hierarchies and in v2. With the systemd driver the kubelet sends the name of a slice,
in which each dash is one level of nesting (systemd.slice(5)).

    pod's cgroup
    ├── <container ID>                   cgroupfs
    ├── noderuntime-<container ID>.scope systemd
    └── noderuntime-monitor              every conmon of the pod: v2 allows no process in an inner node
"""

from __future__ import annotations

import posixpath
from typing import Literal

from noderuntime.core.errors import InvalidArgument

CgroupDriver = Literal["cgroupfs", "systemd"]

_PREFIX = "noderuntime"


def pod_cgroup(parent: str, sandbox_id: str, driver: CgroupDriver) -> str:
    """Return the path of a pod's cgroup for CRI's ``cgroup_parent``, or of a default one if it is empty.

    InvalidArgument if the name is invalid or contains ``..``.
    """
    if driver == "systemd":
        return slice_path(posixpath.basename(parent) if parent else f"{_PREFIX}-{sandbox_id[:12]}.slice")
    path = parent or f"/{_PREFIX}/{sandbox_id}"
    if not path.startswith("/") or "\0" in path or ".." in path.split("/") or len(path) > 1024:
        raise InvalidArgument(f"cgroup parent {path[:80]!r} is not an absolute path")
    return posixpath.normpath(path)


def slice_path(name: str) -> str:
    """Return the path of a systemd slice: ``/a.slice/a-b.slice`` for ``a-b.slice``. InvalidArgument."""
    stem = name.removesuffix(".slice")
    parts = stem.split("-")
    if not name.endswith(".slice") or "/" in name or "\0" in name or len(name) > 255 or not all(parts):
        raise InvalidArgument(f"cgroup parent {name[:80]!r} is not the name of a slice")
    steps = ("-".join(parts[: depth + 1]) + ".slice" for depth in range(len(parts)))
    return "/" + "/".join(steps)


def container_cgroup(pod: str, container_id: str, driver: CgroupDriver) -> str:
    """Return the path of a container's cgroup, below that of its pod."""
    leaf = container_id if driver == "cgroupfs" else f"{_PREFIX}-{container_id}.scope"
    return posixpath.join(pod, leaf)


def oci_cgroups_path(pod: str, container_id: str, driver: CgroupDriver) -> str:
    """Return ``linux.cgroupsPath`` of a container's cgroup: a path, or ``slice:prefix:name``."""
    if driver == "cgroupfs":
        return posixpath.join(pod, container_id)
    return f"{posixpath.basename(pod)}:{_PREFIX}:{container_id}"


def scope_path(cgroups_path: str) -> str:
    """Return the path of the scope that systemd creates for a ``cgroupsPath`` ``slice:prefix:name``."""
    parent, prefix, name = cgroups_path.split(":")
    return posixpath.join(slice_path(parent), f"{prefix}-{name}.scope")


def monitor_cgroup(pod: str) -> str:
    """Return the path of the cgroup of a pod's monitors."""
    return posixpath.join(pod, f"{_PREFIX}-monitor")
