"""Control messages to a running conmon: lines of three numbers, written to the ``ctl`` fifo of its bundle."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from noderuntime.core.errors import FailedPrecondition, host_error


def send(fifo: Path, message: bytes) -> None:
    """Write a message to the fifo. FailedPrecondition if conmon, its reader, has ended."""
    try:
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise FailedPrecondition("the container's monitor has ended") from error
        raise host_error(f"open {fifo}", error) from error
    try:
        os.write(fd, message)
    finally:
        os.close(fd)
