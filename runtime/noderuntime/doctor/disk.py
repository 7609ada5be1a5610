"""Room on the filesystems that the daemon writes to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from noderuntime.config import ServerConfig
from noderuntime.doctor.finding import Finding, bad, good, poor

_LOW = 0.10
"""Share of room below which kubelets evict pods unless told otherwise (nodefs.available)."""
_GONE = 0.02
_ADVICE = "make room: kubelets begin to evict pods at 10 %"


def disk(server: ServerConfig) -> Iterator[Finding]:
    """Look at bytes and inodes under the state and the run directory."""
    for name, path in (("state directory", server.state_dir), ("run directory", server.run_dir)):
        there = next(place for place in (path, *path.parents) if place.exists())
        facts = os.statvfs(there)
        yield _room(name, there, "of the bytes", facts.f_bavail, facts.f_blocks)
        yield _room(f"{name}'s inodes", there, "of the inodes", facts.f_favail, facts.f_files)


def _room(check: str, place: Path, what: str, free: int, total: int) -> Finding:
    share = free / total if total else 1.0  # a filesystem that does not count them has enough
    found = f"{place}: {share:.0%} {what} are free"
    if share < _GONE:
        return bad(check, found, _ADVICE)
    return poor(check, found, _ADVICE) if share < _LOW else good(check, found)
