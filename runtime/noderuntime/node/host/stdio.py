"""The standard streams of a process that somebody else started."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.process import identify


def give_stdio(process: ProcessRef, uid: int) -> None:
    """Make pipes that are a process's streams its user's, so that ``/dev/stdout`` can be opened anew.

    What is no pipe (``/dev/null``, a terminal) stays whose it is. Nothing happens when the process is gone.
    """
    for number in range(3):
        with suppress(FileNotFoundError):
            fd = os.open(f"/proc/{process.pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
            try:
                if stat.S_ISFIFO(os.fstat(fd).st_mode) and identify(process.pid) == process:
                    os.chown(f"/proc/self/fd/{fd}", uid, -1)
            finally:
                os.close(fd)
