"""The owner of the standard streams of a process that the runtime started."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.process import identify


def give_stdio(process: ProcessRef, uid: int) -> None:
    """Change the owner of the pipes among a process's streams, so that its user can open ``/dev/stdout``.

    Other streams (``/dev/null``, a terminal) keep their owners. No error if the process has ended.
    """
    for number in range(3):
        with suppress(FileNotFoundError):
            fd = os.open(f"/proc/{process.pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
            try:
                if stat.S_ISFIFO(os.fstat(fd).st_mode) and identify(process.pid) == process:
                    os.chown(f"/proc/self/fd/{fd}", uid, -1)
            finally:
                os.close(fd)
