"""Resolve a prefix that a person typed to the full ID of an object."""

from __future__ import annotations

from collections.abc import Iterable

from noderuntime.core.errors import FailedPrecondition, NotFound

_SHOWN_MATCHES = 5
_SHOWN_CHARACTERS = 6
"""Characters of each match shown after the prefix."""


def find(kind: str, prefix: str, known: Iterable[str]) -> str:
    """Return the only ID with this prefix. NotFound if no ID has it, FailedPrecondition if several do."""
    matches = sorted({identifier for identifier in known if identifier.startswith(prefix)})
    if prefix in matches:
        return prefix
    if not matches:
        raise NotFound(f"no {kind} {prefix[:64]}")
    if len(matches) > 1:
        shown = ", ".join(
            identifier[: len(prefix) + _SHOWN_CHARACTERS] for identifier in matches[:_SHOWN_MATCHES]
        )
        raise FailedPrecondition(
            f"more than one {kind} ID begins with {prefix!r}, type a longer prefix: {shown}"
        )
    return matches[0]
