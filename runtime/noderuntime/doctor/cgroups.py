"""Control groups: which version, and the controllers that limits and statistics need."""

from __future__ import annotations

from collections.abc import Iterator

from noderuntime.doctor.finding import Finding, bad, good, poor
from noderuntime.node.host.cgroup import Cgroups

_NEEDED = ("cpu", "memory", "pids")
_WANTED = ("cpuset", "io", "hugetlb")
_V1_NAMES = {"io": "blkio"}


def cgroups(groups: Cgroups) -> Iterator[Finding]:
    """Look at what is mounted below ``/sys/fs/cgroup``."""
    if not groups.hierarchies:
        yield bad(
            "cgroups",
            "nothing is mounted at /sys/fs/cgroup",
            "mount -t cgroup2 none /sys/fs/cgroup; systemd does it at boot",
        )
        return
    if groups.version == 2:
        yield good("cgroups", "version 2")
    else:
        yield poor(
            "cgroups",
            "version 1",
            "boot with systemd.unified_cgroup_hierarchy=1, or give kubelets from 1.35 on failCgroupV1: false",
        )
    yield from _controllers(groups)


def _controllers(groups: Cgroups) -> Iterator[Finding]:
    there = groups.controllers()
    missing = [name for name in (*_NEEDED, *_WANTED) if _name(groups, name) not in there]
    advice = "enable them on the kernel's command line (cgroup_enable=…) or in its configuration"
    if any(name in _NEEDED for name in missing):
        yield bad("cgroup controllers", f"missing: {', '.join(missing)}", advice)
    elif missing:
        yield poor("cgroup controllers", f"missing: {', '.join(missing)}", advice)
    else:
        yield good("cgroup controllers", ", ".join((*_NEEDED, *_WANTED)))


def _name(groups: Cgroups, controller: str) -> str:
    return controller if groups.version == 2 else _V1_NAMES.get(controller, controller)
