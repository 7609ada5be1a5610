"""Reads from a fifo whose writer waits for a reader."""

from __future__ import annotations

import os
from pathlib import Path

from noderuntime.core.errors import host_error
from noderuntime.core.tasks import Scope, first
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.process import readable, wait


async def read_once(fifo: Path, writer: ProcessRef, timeout: float) -> bool:
    """Open a fifo and wait for a write. Return whether the writer wrote.

    Return False if the fifo is missing, the writer ends, or ``timeout`` seconds have passed.
    """
    try:
        fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise host_error(f"open {fifo}", error) from error
    try:
        async with Scope() as scope:
            await first(
                scope.start(readable(fd), name="await a write to a fifo"),
                scope.start(wait(writer, timeout), name="await the end of a fifo's writer"),
            )
        return bool(os.read(fd, 1))
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
