"""Removes untrusted directory trees.

Every step is relative to an open directory. Symlinks are removed and never followed. The removal fails at a
mount point, because the mounted filesystem must not be emptied. Each level needs an open descriptor, so
the subdirectories below a depth of 64 are first moved up to the top.
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
"""The depth below the top to which directories are emptied in place. Each level needs a descriptor."""


async def remove_tree(path: Path) -> None:
    """Remove a directory tree. No error if it is missing.

    HostError with the entry that cannot be removed; EBUSY for a mount point. Entries
    that were removed before stay removed.
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
        reason = "it contains a mount point" if code == errno.EBUSY else str(error)
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
    """Remove an entry, or move it to the top of the tree and add it to the names there."""
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
    """Remove an entry that is not a directory. Return False if it is a directory."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        return False
    return True
