"""Work on files: in a thread of its own, and with failures in our own terms."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from noderuntime.core.errors import HostError, ResourceExhausted
from noderuntime.node.host.threads import in_own_thread

_FULL = (errno.ENOSPC, errno.EDQUOT)

T = TypeVar("T")


async def on_files(action: str, call: Callable[[], T], *, abandon: bool = False) -> T:
    """Run a blocking call; ``action`` says in errors what it was for.

    A cancelled caller waits for the call's end, unless it may be abandoned (calls that only read).
    """
    try:
        return await in_own_thread(call, abandon=abandon)
    except OSError as error:
        raise file_error(action, error) from error


def file_error(action: str, error: OSError) -> HostError | ResourceExhausted:
    """Make ResourceExhausted of a full disk, and HostError of everything else."""
    code, reason = error.errno or 0, error.strerror or str(error)
    if code in _FULL:
        return ResourceExhausted(f"{action}: the disk is full ({reason})")
    return HostError(action, code, reason)
