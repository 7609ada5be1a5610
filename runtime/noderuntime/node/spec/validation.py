"""Validation of strings of a request that are passed to the kernel."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument

_PATH_MAX, _NAME_MAX = 4096, 255


def check_text(value: str, name: str) -> str:
    """Return the text. InvalidArgument if it contains a NUL, at which the kernel would truncate it."""
    if "\0" in value:
        raise InvalidArgument(f"{name} contains a NUL character")
    return value


def check_absolute(path: str, name: str) -> str:
    """Return the path. InvalidArgument if it is not absolute."""
    if not check_text(path, name).startswith("/"):
        raise InvalidArgument(f"{name} {quoted(path)} is not an absolute path")
    return path


def check_path(path: str, name: str) -> str:
    """Return the path. InvalidArgument if it is not absolute, contains "..", or is too long."""
    parts = check_absolute(path, name).encode().split(b"/")
    if b".." in parts or len(path.encode()) >= _PATH_MAX or max(map(len, parts)) > _NAME_MAX:
        raise InvalidArgument(f'{name} {quoted(path)} is invalid: contains "..", or is too long')
    return path


def quoted(value: str) -> str:
    """Return the first 80 characters of an untrusted text in quotes, with control characters escaped."""
    return ascii(value[:80]) + ("…" if len(value) > 80 else "")
