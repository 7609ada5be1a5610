"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARN = "warn"
    """Pods run, but a feature that some of them may need is missing."""
    FAIL = "fail"
    """Some or all pods of noderuntime's handlers cannot run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    state: State
    found: str
    advice: str = ""
    """How to fix it. Empty only if the state is OK."""


def ok(check: str, found: str) -> Finding:
    """Return a finding with state OK."""
    return Finding(check, State.OK, found)


def warn(check: str, found: str, advice: str) -> Finding:
    """Return a finding with state WARN."""
    return Finding(check, State.WARN, found, advice)


def fail(check: str, found: str, advice: str) -> Finding:
    """Return a finding with state FAIL."""
    return Finding(check, State.FAIL, found, advice)
