"""Reads small files from a container's root filesystem, which is untrusted."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from noderuntime.core.errors import HostError, InvalidArgument
from noderuntime.node.host.syscalls import open_in_root

_LIMIT = 4 << 20


def read_in_rootfs(rootfs: Path, path: str, limit: int = _LIMIT) -> bytes | None:
    """Return the content of a file, or None if it does not exist. Blocks: call it in a worker thread.

    InvalidArgument if it is not a regular file or exceeds the limit in bytes.
    """
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root, path)
    except HostError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            return None
        raise
    finally:
        os.close(root)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise InvalidArgument(f"the image's {path} is not a regular file of at most {limit >> 20} MiB")
        return file.read(limit)
