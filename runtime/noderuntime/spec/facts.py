"""What this node can do, read once at start."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from noderuntime.host import cgroup

_CAP_SYS_RESOURCE = 24


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
    seccomp_profile: Path | None
    """The file behind RuntimeDefault; None: RuntimeDefault is unconfined."""

    @property
    def may_lower_oom_score(self) -> bool:
        """Tell whether an oom_score_adj below our own can be set."""
        return bool(self.capabilities >> _CAP_SYS_RESOURCE & 1)


def read_facts(*, seccomp_profile: Path | None) -> HostFacts:
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
        seccomp_profile=seccomp_profile if seccomp_profile and os.access(seccomp_profile, os.R_OK) else None,
    )
