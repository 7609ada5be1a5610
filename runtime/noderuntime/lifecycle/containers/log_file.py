"""The log of a container that never was."""

from __future__ import annotations

import os

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import host_error


async def remove_unused(log_path: str) -> None:
    """Remove a log in which nothing is; missing is no error.

    The monitor opens it first of all, and the kubelet takes each log that it finds for a restart.
    """
    if log_path:
        await FILES.run(_remove_empty, log_path)


def _remove_empty(path: str) -> None:
    try:
        if os.lstat(path).st_size == 0:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise host_error(f"remove {path}", error) from error
