"""Words of a request that end up in a kernel call."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument

_PATH_MAX, _NAME_MAX = 4096, 255


def clean(value: str, what: str) -> str:
    """Return the text unless it holds a NUL, where the kernel would cut it off."""
    if "\0" in value:
        raise InvalidArgument(f"{what} contains a NUL character")
    return value


def absolute(path: str, what: str) -> str:
    """Return an absolute path; InvalidArgument for anything else."""
    if not clean(path, what).startswith("/"):
        raise InvalidArgument(f"{what} {shown(path)} is not an absolute path")
    return path


def check_path(path: str, what: str) -> str:
    """Return an absolute path that leads down only, and that the kernel takes; InvalidArgument for others."""
    parts = absolute(path, what).encode().split(b"/")
    if b".." in parts or len(path.encode()) >= _PATH_MAX or max(map(len, parts)) > _NAME_MAX:
        raise InvalidArgument(f"{what} {shown(path)} is no path")
    return path


def shown(value: str) -> str:
    """Return hostile text in quotes, without control characters, at most 80 characters of it."""
    return ascii(value[:80]) + ("…" if len(value) > 80 else "")
