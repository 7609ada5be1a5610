"""Removing directory trees that others may have filled.

Every step is relative to an open directory, links are removed and never
followed, and a mount point stops the removal: what is mounted there is not ours.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from noderuntime.errors import HostError
from noderuntime.host import syscalls
from noderuntime.host.threads import in_own_thread


async def remove_tree(path: Path) -> None:
    """Remove the tree; missing is no error.

    HostError names the entry that could not go, a mount point with EBUSY; what
    was removed before it stays removed.
    """
    await in_own_thread(lambda: _remove_tree(path))


def _remove_tree(path: Path) -> None:
    try:
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove_entry(parent, path.name)
    except OSError as error:
        raise HostError(
            f"remove {path}", error.errno or 0, f"{error.strerror} at {error.filename!r}"
        ) from error
    except HostError as error:
        code = errno.EBUSY if error.errno == errno.EXDEV else error.errno
        reason = "something is mounted inside" if code == errno.EBUSY else str(error)
        raise HostError(f"remove {path}", code, reason) from error
    finally:
        os.close(parent)


def _remove_entry(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        _empty(parent, name)
        os.rmdir(name, dir_fd=parent)


def _empty(parent: int, name: str) -> None:
    directory = syscalls.open_directory_here(parent, name)
    try:
        for entry in os.listdir(directory):
            _remove_entry(directory, entry)
    finally:
        os.close(directory)
