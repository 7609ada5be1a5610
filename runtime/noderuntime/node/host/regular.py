"""Reading whole files whose paths others chose; a device or a fifo is not waited for. Blocks."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, limit: int) -> bytes:
    """Return a file's content. Raises OSError, and ValueError for what is no regular file or too large."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise ValueError(f"it is no regular file of at most {limit >> 10} KiB")
        return file.read(limit)
