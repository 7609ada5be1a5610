"""Disk usage of directory trees, which containers can change during the measurement."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from noderuntime.node.snapshots.base import Usage

_MAX_DEPTH = 128
"""Levels that are measured. Each needs two open descriptors."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512


def measure(root: Path) -> Usage:
    """Return the disk usage of a tree. Symlinks are not followed, hard links count once. Blocks.

    Files that are created or removed meanwhile may be counted or not. FileNotFoundError if the tree
    does not exist.
    """
    linked: set[tuple[int, int]] = set()
    blocks = inodes = 0
    for found in _walk(root):
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            if (found.st_dev, found.st_ino) in linked:
                continue
            linked.add((found.st_dev, found.st_ino))
        blocks += found.st_blocks
        inodes += 1
    return Usage(blocks * _BLOCK, inodes)


def _walk(root: Path) -> Iterator[os.stat_result]:
    levels = [_Level(os.open(root, _DIRECTORY))]
    try:
        yield os.fstat(levels[0].fd)
        while levels:
            entry = next(levels[-1].entries, None)
            if entry is None:
                levels.pop().close()
                continue
            with suppress(OSError):  # removed meanwhile
                found = entry.stat(follow_symlinks=False)
                yield found
                if stat.S_ISDIR(found.st_mode) and len(levels) < _MAX_DEPTH:
                    levels.append(_Level(os.open(entry.name, _DIRECTORY, dir_fd=levels[-1].fd)))
    finally:
        for level in levels:
            level.close()


class _Level:
    """An open directory on the path to the current one."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        try:
            self.entries = os.scandir(fd)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        self.entries.close()
        os.close(self.fd)
