"""From what a person types to the full ID of an object: an ID may be cut as long as only one fits."""

from __future__ import annotations

from collections.abc import Iterable

from noderuntime.core.errors import FailedPrecondition, NotFound

_SHOWN = 5
_MORE = 6


def find(what: str, typed: str, known: Iterable[str]) -> str:
    """Return the one ID that begins so. NotFound if none does, FailedPrecondition if several do."""
    matches = sorted({identifier for identifier in known if identifier.startswith(typed)})
    if typed in matches:
        return typed
    if not matches:
        raise NotFound(f"no {what} {typed[:64]}")
    if len(matches) > 1:
        shown = ", ".join(identifier[: len(typed) + _MORE] for identifier in matches[:_SHOWN])
        raise FailedPrecondition(f"more than one {what} fits {typed!r}, type some more: {shown}")
    return matches[0]
