"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """Pods run, but something is missing that some of them, or their owner, may want."""
    FAIL = "fail"
    """Pods of our handlers do not run, or not all of them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty only when all is well."""


def good(check: str, found: str) -> Finding:
    """Find nothing wrong."""
    return Finding(check, State.OK, found)


def poor(check: str, found: str, advice: str) -> Finding:
    """Find something that may matter."""
    return Finding(check, State.WARN, found, advice)


def bad(check: str, found: str, advice: str) -> Finding:
    """Find something that has to be mended."""
    return Finding(check, State.FAIL, found, advice)
