"""Measuring directory trees that others fill meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from noderuntime.node.snapshots.base import Usage

_DEEPEST = 128
"""Levels that are looked into; each one costs two open descriptors."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512


def measure(root: Path) -> Usage:
    """Add up a tree without following links; files with several names count once. Blocks.

    What comes and goes meanwhile may be counted or not. FileNotFoundError without a tree.
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
            with suppress(OSError):  # it is gone
                found = entry.stat(follow_symlinks=False)
                yield found
                if stat.S_ISDIR(found.st_mode) and len(levels) < _DEEPEST:
                    levels.append(_Level(os.open(entry.name, _DIRECTORY, dir_fd=levels[-1].fd)))
    finally:
        for level in levels:
            level.close()


class _Level:
    """A directory on the way to the current one."""

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
