"""Versions of the Linux kernel, as (major, minor)."""

from __future__ import annotations

import platform
import re


def version_of(release: str) -> tuple[int, int]:
    """Return the major and minor version of a release (``6.1.0-18``), or (0, 0) if it cannot be parsed."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def running_version() -> tuple[int, int]:
    """Return the version of the running kernel."""
    return version_of(platform.release())
