"""Formatting for terminals. Strings from pods, images and registries are untrusted. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_AGES = ((86400 * 2, 86400, "d"), (3600 * 2, 3600, "h"), (60 * 2, 60, "m"))
_SHORT_ID = 13


def printable(text: str) -> str:
    """Return the text with control and invisible characters escaped as in Python: ``\\x1b``, ``\\u202e``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with aligned columns and a line for each row. An empty field becomes a dash."""
    lines = [list(head), *([printable(field) or "-" for field in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("   ".join(map(str.ljust, line, widths)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def short_id(identifier: str) -> str:
    """Return the first 13 characters of an ID, without the prefix ``sha256:``."""
    return identifier.removeprefix("sha256:")[:_SHORT_ID]


def age(since: int, now: int) -> str:
    """Return the time between two moments in nanoseconds, with one unit. Empty if ``since`` is 0."""
    if not since:
        return ""
    seconds = max(0, now - since) // 10**9
    for least, unit, letter in _AGES:
        if seconds >= least:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"


def timestamp(nanoseconds: int) -> str:
    """Return nanoseconds since the epoch as an RFC 3339 time in UTC."""
    return datetime.fromtimestamp(nanoseconds / 10**9, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def size(number: int) -> str:
    """Return a number of bytes with a binary unit and about three digits."""
    value, unit = float(number), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 10 or not unit else f"{value:.1f} {_UNITS[unit]}"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
