"""Checks of free space on the filesystems that the daemon writes to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from noderuntime.config import ServerConfig
from noderuntime.doctor.finding import Finding, fail, ok, warn

_WARN_SHARE = 0.10
"""Free share below which the kubelet evicts pods by default (nodefs.available)."""
_FAIL_SHARE = 0.02
_ADVICE = "free space: by default the kubelet evicts pods below 10 %"


def disk(server: ServerConfig) -> Iterator[Finding]:
    """Check the free bytes and inodes of the state directory and the run directory."""
    for name, path in (("state directory", server.state_dir), ("run directory", server.run_dir)):
        existing = next(candidate for candidate in (path, *path.parents) if candidate.exists())
        usage = os.statvfs(existing)
        yield _free(name, existing, "of the bytes", usage.f_bavail, usage.f_blocks)
        yield _free(f"{name}'s inodes", existing, "of the inodes", usage.f_favail, usage.f_files)


def _free(check: str, path: Path, unit: str, free: int, total: int) -> Finding:
    share = free / total if total else 1.0  # some filesystems, such as btrfs, report no inode count
    found = f"{path}: {share:.0%} {unit} are free"
    if share < _FAIL_SHARE:
        return fail(check, found, _ADVICE)
    return warn(check, found, _ADVICE) if share < _WARN_SHARE else ok(check, found)
