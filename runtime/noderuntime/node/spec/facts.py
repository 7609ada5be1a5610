"""What this node can do, read once at start."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from noderuntime.node.host import cgroup
from noderuntime.node.host.apparmor import AppArmor

_CAP_SYS_RESOURCE = 24
_MAPPED_LAYERS = (5, 19)
"""The first kernel whose overlayfs takes layers from mounts with mapped IDs."""
_MAX_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The node, as far as specs depend on it."""

    architecture: str
    """As the kernel says it: ``x86_64``."""
    kernel: str
    """Its release: ``6.1.0-18``."""
    capabilities: int
    """Bit mask of what this daemon may give away."""
    oom_score_adj: int
    """This daemon's own; without CAP_SYS_RESOURCE no container gets a lower one."""
    cgroup_version: int
    controllers: frozenset[str]
    swap_accounting: bool
    """Memory with swap can be limited."""
    swap_file: bool
    """It is limited by ``memory.swap.max``, in cgroup v2."""
    seccomp_profile: Path | None
    """The file behind RuntimeDefault; None: RuntimeDefault is unconfined."""
    user_namespaces: bool = True
    """There may be user namespaces, and overlays of layers whose IDs are mapped."""
    apparmor: AppArmor | None = None
    """None on a node without AppArmor."""

    @property
    def may_lower_oom_score(self) -> bool:
        """Tell whether an oom_score_adj below our own can be set."""
        return bool(self.capabilities >> _CAP_SYS_RESOURCE & 1)


def version_of(kernel: str) -> tuple[int, int]:
    """Return the numbers that a kernel's release begins with."""
    match = re.match(r"(\d+)\.(\d+)", kernel)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def read_facts(*, seccomp_profile: Path | None, apparmor: AppArmor | None = None) -> HostFacts:
    """Look at this process and its kernel."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    cgroups = cgroup.Cgroups()
    return HostFacts(
        architecture=platform.machine(),
        kernel=platform.release(),
        capabilities=int(effective, 16),
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii")),
        cgroup_version=cgroups.version,
        controllers=cgroups.controllers(),
        swap_accounting=cgroups.swap_accounting(),
        swap_file=cgroups.swap_file(),
        user_namespaces=_user_namespaces(),
        apparmor=apparmor,
        seccomp_profile=seccomp_profile if seccomp_profile and os.access(seccomp_profile, os.R_OK) else None,
    )


def _user_namespaces() -> bool:
    try:
        allowed = int(_MAX_USER_NAMESPACES.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return allowed > 0 and version_of(platform.release()) >= _MAPPED_LAYERS
