"""The log of a container that never was."""

from __future__ import annotations

import asyncio
import os

from noderuntime.core.errors import HostError


async def remove_unused(log_path: str) -> None:
    """Remove a log in which nothing is; missing is no error.

    The monitor opens it first of all, and the kubelet takes each log that it finds for a restart.
    """
    if log_path:
        await asyncio.to_thread(_remove_empty, log_path)


def _remove_empty(path: str) -> None:
    try:
        if os.lstat(path).st_size == 0:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise HostError(f"remove {path}", error.errno or 0, error.strerror or "") from error
