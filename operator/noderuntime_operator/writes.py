"""Send many writes: with bounded concurrency, and so that a refused one does not hold up the others.

An object whose write was refused is tried again with growing delays of its own. An unreachable API server
and a lost leadership end all writes at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from noderuntime_operator.backoff import Backoff
from noderuntime_operator.concurrency import for_each
from noderuntime_operator.kube import KubeError

BACKOFF_SECONDS = (2.0, 60.0)
PERSISTENT = 3
"""Refusals that may pass by themselves (conflicts, overload) are reported from this attempt on."""

Write = Callable[[], Awaitable[object]]


@dataclass
class Refusal:
    """The write of one object that the API server refused."""

    error: KubeError
    due: float = 0.0
    """When it is tried again."""
    backoff: Backoff = field(default_factory=lambda: Backoff(*BACKOFF_SECONDS))

    @property
    def is_reported(self) -> bool:
        """Whether a user should see it."""
        return self.error.is_lasting or self.backoff.failures >= PERSISTENT


@dataclass(frozen=True)
class Outcome:
    """How the writes of a reconciliation ended."""

    due: float | None
    """When the next refused write is tried again."""
    failed: bool
    """Whether a write was refused now that is reported. One that only waits for its next attempt was not."""
    report: str
    """A message that names the first three refused writes; empty if there are none to report."""


class Writer:
    """Sends the writes of one NodeRuntime's reconciliations, and remembers the refused ones.

    answered is called after each answer of the API server: many writes can take minutes.
    """

    def __init__(self, clock: Callable[[], float], answered: Callable[[], None]) -> None:
        self._refusals: dict[str, Refusal] = {}
        """The refused writes by name, for example "labels of Node n1"."""
        self._planned: set[str] = set()
        self._failed = False
        self._clock = clock
        self._answered = answered

    async def send(self, writes: Mapping[str, Write]) -> None:
        """Send the named writes. Raises KubeError if the API server is unreachable, NotLeader."""
        self._planned |= writes.keys()
        due = [(name, write) for name, write in writes.items() if self._is_due(name)]
        await for_each(due, lambda item: self._send(*item))

    def finish(self) -> Outcome:
        """End a reconciliation, and forget refusals of writes that were not planned again."""
        self._refusals = {name: found for name, found in self._refusals.items() if name in self._planned}
        due = min((refusal.due for refusal in self._refusals.values()), default=None)
        outcome = Outcome(due, self._failed, self._report())
        self._planned, self._failed = set(), False
        return outcome

    def _report(self) -> str:
        found = sorted(self._refusals.items())
        reported = [f"{name}: {refusal.error}" for name, refusal in found if refusal.is_reported]
        more = f"; and {len(reported) - 3} more" if len(reported) > 3 else ""
        return "; ".join(reported[:3]) + more

    def _is_due(self, name: str) -> bool:
        refusal = self._refusals.get(name)
        return refusal is None or refusal.due <= self._clock()

    async def _send(self, name: str, write: Write) -> None:
        try:
            await write()
        except KubeError as error:
            if not error.is_refusal:
                raise
            refusal = self._refusals.setdefault(name, Refusal(error))
            refusal.error = error
            refusal.due = self._clock() + refusal.backoff.next()
            self._failed |= refusal.is_reported
        else:
            self._refusals.pop(name, None)
        self._answered()
