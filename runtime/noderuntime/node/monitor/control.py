"""Messages to a running conmon: lines of three numbers into the ``ctl`` fifo of its bundle."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from noderuntime.core.errors import FailedPrecondition, host_error


def tell(fifo: Path, message: bytes) -> None:
    """Write to the fifo, which has a reader as long as conmon lives; FailedPrecondition after that."""
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
