"""The node's properties that specs depend on, read once at start."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.host import cgroup
from noderuntime.node.host.apparmor import AppArmor
from noderuntime.node.host.kernel import running_version
from noderuntime.node.host.open_files import INHERITED

_CAP_SYS_RESOURCE = 24
_MAPPED_LAYERS = (5, 19)
"""The first kernel version whose overlayfs accepts ID-mapped mounts as layers."""
_ALL_IDS = ["0", "0", str(2**32 - 1)]
_MAX_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The node's properties that specs depend on."""

    architecture: str
    """The kernel's name of it: ``x86_64``."""
    kernel: str
    """The kernel's release: ``6.1.0-18``."""
    capabilities: int
    """Bit mask of this daemon's effective capabilities, the most that a container can get."""
    oom_score_adj: int
    """This daemon's own value. Without CAP_SYS_RESOURCE, no container can have a lower one."""
    cgroup_version: int
    controllers: frozenset[str]
    swap_accounting: bool
    """Whether the sum of memory and swap can be limited."""
    has_swap_max: bool
    """Whether swap is limited by ``memory.swap.max`` (cgroup v2)."""
    seccomp_profile: Path | None
    """The file with the profile RuntimeDefault. None: the built-in profile."""
    user_namespaces: bool = True
    """Whether user namespaces, and overlays of ID-mapped layers, are supported."""
    apparmor: AppArmor | None = None
    """None if AppArmor is disabled."""
    maps_all_groups: bool = True
    """Whether every group ID is valid. False if this daemon is in a user namespace."""
    open_files: tuple[int, int] = INHERITED
    """The soft and the hard limit on open files of containers' processes."""

    @property
    def can_lower_oom_score(self) -> bool:
        """Return whether a container can have a lower oom_score_adj than this daemon."""
        return bool(self.capabilities >> _CAP_SYS_RESOURCE & 1)


def read_facts(*, seccomp_profile: Path | None, apparmor: AppArmor | None = None) -> HostFacts:
    """Return the facts of this process and its kernel.

    Raises InvalidArgument if the configured seccomp profile cannot be read: pods must not run without it.
    """
    if seccomp_profile is not None and not os.access(seccomp_profile, os.R_OK):
        raise InvalidArgument(
            f"tools.seccomp_profile {seccomp_profile} cannot be read: correct the path,"
            " or remove the key for the built-in profile"
        )
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
        has_swap_max=cgroups.swap_file(),
        user_namespaces=_user_namespaces(),
        apparmor=apparmor,
        maps_all_groups=Path("/proc/self/gid_map").read_text(encoding="ascii").split() == _ALL_IDS,
        seccomp_profile=seccomp_profile,
    )


def _user_namespaces() -> bool:
    try:
        allowed = int(_MAX_USER_NAMESPACES.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return allowed > 0 and running_version() >= _MAPPED_LAYERS
