"""IDs of sandboxes and containers: created and checked here.

An ID has 64 lower-case hexadecimal digits, as in containerd and CRI-O. IDs become path components, cgroup
names and tool arguments, so other characters are rejected.
"""

from __future__ import annotations

import re
import secrets

from noderuntime.core.errors import InvalidArgument

_ID = re.compile(r"[0-9a-f]{64}")
_UPSTREAM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def new_id() -> str:
    """Return a new random ID."""
    return secrets.token_hex(32)


def is_ours(identifier: str) -> bool:
    """Return whether the text has the form of an ID of :func:`new_id`."""
    return _ID.fullmatch(identifier) is not None


def check_id(identifier: str, what: str) -> str:
    """Return the identifier if it can be an ID of any runtime.

    InvalidArgument if it contains characters of a path or an option.
    A prefix of an ID is a valid identifier, which CRI clients send.
    """
    if not _UPSTREAM_ID.fullmatch(identifier):
        shown = identifier[:40].encode("unicode_escape").decode("ascii")
        raise InvalidArgument(
            f"{what} {shown!r} is not a valid ID: at most 128 letters, digits, '_', '.' and '-'"
        )
    return identifier
