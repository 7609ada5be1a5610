"""Texts of conditions: bounded lists of names, one-line messages, timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

NAMED = 10
MESSAGE_LIMIT = 1024
RETRIED = "it is tried again when the spec, the agents' image or the annotation noderuntime.dev/retry changes"
"""What a user can do about a failed revision."""


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """Return at most ten names, and the number of the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return separator.join(names[:NAMED]) + more


def one_line(text: str) -> str:
    """Return a message as one line of bounded length."""
    return " ".join(text.split())[:MESSAGE_LIMIT]


def timestamp(time: datetime) -> str:
    """Return a time in RFC 3339 form, in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
