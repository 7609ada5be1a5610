"""Rollback of a failed verb: a last-in, first-out list of described steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

from noderuntime.core import log

_log = log.get(__name__)


class Undo:
    """Collects the rollback of each step before the step; runs all rollbacks if the block fails.

    A rollback can run for a step that was not completed, so all of them are idempotent. A rollback that
    fails is logged and recorded in :attr:`complete`, and the others run nevertheless.
    """

    def __init__(self, what: str) -> None:
        self.complete = True
        self._what = what
        self._steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []

    def add(self, step: str, undo: Callable[[], Awaitable[None]]) -> None:
        """Register the rollback of the next step."""
        self._steps.append((step, undo))

    async def __aenter__(self) -> Undo:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        for step, undo in reversed(self._steps):
            try:
                await undo()
            except Exception as failure:
                self.complete = False
                _log.error("rollback step failed", of=self._what, step=step, error=str(failure))
