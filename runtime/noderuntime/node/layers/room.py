"""Enforces the limits on what a decompression may write: its size, and the disk space that stays free."""

from __future__ import annotations

import os

from noderuntime.core.errors import ResourceExhausted
from noderuntime.node.layers.tar.limits import Limits

_INTERVAL = 16 << 20
"""Uncompressed bytes between two measurements of the disk."""


class Room:
    """Counts uncompressed bytes that are written below a directory."""

    def __init__(self, directory: str, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits
        self._measure_at = 0
        self.used = 0
        """Bytes so far."""

    def take(self, count: int) -> None:
        """Count bytes. ResourceExhausted beyond a limit, OSError if the disk cannot be measured."""
        self.used += count
        if self.used > self._limits.size:
            raise ResourceExhausted(
                f"uncompressed, it exceeds the limit of {self._limits.size} bytes (images.max_image_size)"
            )
        if self._limits.free_disk and self.used >= self._measure_at:
            self._measure_at = self.used + _INTERVAL
            check_free_disk(self._directory, self._limits.free_disk)


def check_free_disk(directory: str, minimum: int, needed: int = 0) -> None:
    """Raise ResourceExhausted if writing ``needed`` bytes leaves less than ``minimum`` bytes. Blocks."""
    disk = os.statvfs(directory)
    available = disk.f_bavail * disk.f_frsize
    if available < needed + minimum:
        reserve = f" of which {minimum} stay free (images.min_free_disk)" if minimum else ""
        raise ResourceExhausted(
            f"needs more than {needed + minimum} bytes{reserve}, {directory} has {available} available"
        )
