"""Identifiers of sandboxes and containers: made here, checked here.

An ID is 64 lower-case hex digits, as containerd's and CRI-O's are. IDs become
path components, cgroup names and tool arguments, so nothing else is let in.
"""

from __future__ import annotations

import re
import secrets

from noderuntime.core.errors import InvalidArgument

_ID = re.compile(r"[0-9a-f]{64}")
_UPSTREAM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def new_id() -> str:
    """Return a fresh random ID."""
    return secrets.token_hex(32)


def is_ours(identifier: str) -> bool:
    """Tell whether the text has the form of an ID made by :func:`new_id`."""
    return _ID.fullmatch(identifier) is not None


def check_id(identifier: str, what: str) -> str:
    """Return the identifier if it can be one of any runtime's.

    Raises InvalidArgument for anything that could be taken for a path or an option.
    A prefix of an ID is a valid identifier: CRI clients send them.
    """
    if not _UPSTREAM_ID.fullmatch(identifier):
        shown = identifier[:40].encode("unicode_escape").decode("ascii")
        raise InvalidArgument(f"{what} {shown!r} is not an ID: letters, digits, '_', '.', '-', at most 128")
    return identifier
