"""Atomic and durable changes of files: after a power cut a file has its old or its new content."""

from __future__ import annotations

import os
from pathlib import Path

from noderuntime.core.errors import file_error, os_errors


def read(path: Path) -> bytes | None:
    """Return the content, or None if the file does not exist."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: Path, content: bytes, *, mode: int | None = None) -> bool:
    """Set the file's content (and mode), and return whether it changed.

    An existing file keeps its owner, and its mode unless one is given. A new file gets
    mode 0644. Missing directories are created. Raises ResourceExhausted when the disk is
    full, HostError otherwise; the old file is unchanged then.
    """
    with os_errors(f"write {path}", file_error):
        path = path.resolve()
        existing = path.stat() if path.exists() else None
        new_mode = mode if mode is not None else (existing.st_mode & 0o7777 if existing else 0o644)
        if existing and existing.st_mode & 0o7777 == new_mode and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content, new_mode, existing)
    return True


def remove(path: Path) -> bool:
    """Remove the file and return whether it existed."""
    with os_errors(f"remove {path}", file_error):
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        sync_directory(path.parent)
    return True


def link(path: Path, target: str) -> bool:
    """Make the path a symlink to the target, atomically, and return whether it changed."""
    with os_errors(f"link {path}", file_error):
        if path.is_symlink() and os.readlink(path) == target:
            return False
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(path)
        sync_directory(path.parent)
    return True


def sync_directory(path: Path) -> None:
    """Sync a directory, so that renames and removals in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes, mode: int, existing: os.stat_result | None) -> None:
    temporary = path.with_name(f".{path.name}.noderuntime-new")
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), mode)
            if existing and (existing.st_uid, existing.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), existing.st_uid, existing.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
