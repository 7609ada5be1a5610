"""A filesystem whose server does not answer, as that of a dead NFS server: FUSE without a reader."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_DETACH = 2


@contextmanager
def hung(directory: Path) -> Iterator[Path]:
    """Mount it on a directory. Everything below hangs until the block ends, and fails then (ENOTCONN)."""
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _libc.mount(b"hung", os.fsencode(directory), b"fuse", 0, options.encode()):
            code = ctypes.get_errno()
            raise OSError(code, f"mount a hung filesystem: {os.strerror(code)}")
        yield directory
    finally:
        os.close(server)
        _libc.umount2(os.fsencode(directory), _DETACH)
