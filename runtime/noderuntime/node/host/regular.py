"""Reads files at untrusted paths. Does not wait for devices or fifos. Blocks."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, limit: int) -> bytes:
    """Return a file's content. OSError, or ValueError if it is not a regular file or exceeds the limit."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise ValueError(f"it is not a regular file of at most {limit >> 10} KiB")
        return file.read(limit)
