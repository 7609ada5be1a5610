"""Checks of the cgroup version and of the controllers that limits and statistics need."""

from __future__ import annotations

from collections.abc import Iterator

from noderuntime.doctor.finding import Finding, fail, ok, warn
from noderuntime.node.host.cgroup import Cgroups

_REQUIRED = ("cpu", "memory", "pids")
_RECOMMENDED = ("cpuset", "io", "hugetlb")
_V1_NAMES = {"io": "blkio"}


def cgroups(groups: Cgroups) -> Iterator[Finding]:
    """Check what is mounted at ``/sys/fs/cgroup``."""
    if not groups.hierarchies:
        yield fail(
            "cgroups",
            "nothing is mounted at /sys/fs/cgroup",
            "mount -t cgroup2 none /sys/fs/cgroup; systemd does it at boot",
        )
        return
    if groups.version == 2:
        yield ok("cgroups", "version 2")
    else:
        yield warn(
            "cgroups",
            "version 1",
            "boot with systemd.unified_cgroup_hierarchy=1, or set failCgroupV1: false for kubelets >= 1.35",
        )
    yield from _controllers(groups)


def _controllers(groups: Cgroups) -> Iterator[Finding]:
    available = groups.controllers()
    missing = [name for name in (*_REQUIRED, *_RECOMMENDED) if _name(groups, name) not in available]
    advice = "enable them on the kernel's command line (cgroup_enable=…) or in its configuration"
    if any(name in _REQUIRED for name in missing):
        yield fail("cgroup controllers", f"missing: {', '.join(missing)}", advice)
    elif missing:
        yield warn("cgroup controllers", f"missing: {', '.join(missing)}", advice)
    else:
        yield ok("cgroup controllers", ", ".join((*_REQUIRED, *_RECOMMENDED)))


def _name(groups: Cgroups, controller: str) -> str:
    return controller if groups.version == 2 else _V1_NAMES.get(controller, controller)
