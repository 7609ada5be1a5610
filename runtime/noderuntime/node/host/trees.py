"""Removing directory trees that others may have filled.

Every step is relative to an open directory, links are removed and never
followed, and a mount point stops the removal: what is mounted there is not ours.
A tree that is deeper than we like to have descriptors open is made shallow on the way:
its lower parts are moved up.
"""

from __future__ import annotations

import errno
import math
import os
import secrets
from pathlib import Path

from noderuntime.core.blocking import apart
from noderuntime.core.errors import HostError
from noderuntime.node.host import syscalls

_DEEPEST = 64
"""Levels below the tree's top that are entered where they are; each costs a descriptor."""


async def remove_tree(path: Path) -> None:
    """Remove the tree; missing is no error.

    HostError names the entry that could not go, a mount point with EBUSY; what
    was removed before it stays removed.
    """
    await apart(lambda: _remove_tree(path), what=f"remove {path}", seconds=math.inf)


def _remove_tree(path: Path) -> None:
    try:
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not _unlink(parent, path.name):
            _remove_directory(parent, path.name)
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


def _remove_directory(parent: int, name: str) -> None:
    top = syscalls.open_directory_here(parent, name)
    try:
        names = os.listdir(top)
        while names:
            _remove_entry(top, names.pop(), 1, (top, names))
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _remove_entry(parent: int, name: str, depth: int, top: tuple[int, list[str]]) -> None:
    """Remove an entry, or move it up to the tree's top and add it to the names there."""
    if _unlink(parent, name):
        return
    if depth > _DEEPEST:
        moved = secrets.token_hex(16)
        os.rename(name, moved, src_dir_fd=parent, dst_dir_fd=top[0])
        top[1].append(moved)
        return
    directory = syscalls.open_directory_here(parent, name)
    try:
        for entry in os.listdir(directory):
            _remove_entry(directory, entry, depth + 1, top)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)


def _unlink(parent: int, name: str) -> bool:
    """Remove whatever is no directory; tell whether that is done."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        return False
    return True
