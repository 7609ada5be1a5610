"""The limit on open files (RLIMIT_NOFILE): the daemon needs more than what it starts.

A soft limit above 1024 makes some programs fail (select(2)) or slow (those that close every possible
descriptor), so nothing inherits the daemon's. systemd's default, 1024 and 524288, is what containers get from
containerd since 2.0 and from CRI-O since 1.33.
"""

from __future__ import annotations

import resource
from contextlib import suppress

INHERITED = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The soft and the hard limit that this process was started with, which programs and containers get."""


def raise_limit() -> None:
    """Raise this process's soft limit to its hard limit."""
    hard = INHERITED[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def give(pid: int) -> None:
    """Give a program that was just started the limits that this process was started with."""
    with suppress(OSError):  # it has ended, or changed its user
        resource.prlimit(pid, resource.RLIMIT_NOFILE, INHERITED)
