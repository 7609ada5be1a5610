"""Files that are either the old ones or the new ones, never half of each, even after a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from noderuntime.core.errors import HostError, ResourceExhausted


def read(path: Path) -> bytes | None:
    """Return the content, or None if there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: Path, content: bytes, *, mode: int | None = None) -> bool:
    """Make the file have this content (and mode); return False if it had it already.

    A file that is replaced keeps its mode and owner unless a mode is given; a new one
    gets 0644. Missing directories are made. Raises ResourceExhausted when the disk is
    full, HostError otherwise; the old file is then still there.
    """
    with host_errors(f"write {path}"):
        path = path.resolve()
        known = path.stat() if path.exists() else None
        wanted = mode if mode is not None else (known.st_mode & 0o7777 if known else 0o644)
        if known and known.st_mode & 0o7777 == wanted and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content, wanted, known)
    return True


def remove(path: Path) -> bool:
    """Remove the file; return False if there was none."""
    with host_errors(f"remove {path}"):
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        sync_directory(path.parent)
    return True


def link(path: Path, target: str) -> bool:
    """Make path a symbolic link to target, in one step; return False if it was one already."""
    with host_errors(f"link {path}"):
        if path.is_symlink() and os.readlink(path) == target:
            return False
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(path)
        sync_directory(path.parent)
    return True


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def host_errors(action: str) -> Iterator[None]:
    """Turn OSError into one line: ResourceExhausted for a full disk, HostError for the rest."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhausted(f"{action}: no space left on the node's disk") from error
        raise HostError(action, error.errno or 0, error.strerror or str(error)) from error


def _replace(path: Path, content: bytes, mode: int, known: os.stat_result | None) -> None:
    temporary = path.with_name(f".{path.name}.noderuntime-new")
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), mode)
            if known and (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), known.st_uid, known.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
