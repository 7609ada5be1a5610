"""Being the reader that another process waits for at a fifo."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from noderuntime.core.errors import HostError
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.process import readable, wait


async def read_once(fifo: Path, writer: ProcessRef, timeout: float) -> bool:
    """Open a fifo and wait until its writer has written; tell whether it did.

    It did not when there is no such file, when the writer ended before, or when the time (seconds) was over.
    """
    try:
        fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostError(f"open {fifo}", error.errno or 0, error.strerror or "") from error
    either = [asyncio.ensure_future(readable(fd)), asyncio.ensure_future(wait(writer, timeout))]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return bool(os.read(fd, 1))
    except BlockingIOError:
        return False
    finally:
        for one in either:
            one.cancel()
        await asyncio.wait(either)
        os.close(fd)
