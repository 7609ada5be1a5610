"""Undoing, step by step, what a failed verb had done: a last-in, first-out list of described steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

from noderuntime.core import log

_log = log.get(__name__)


class Undo:
    """Collects how to undo each step before it is taken; undoes them all if the block fails.

    A step may be undone that was never quite taken, so all of them are idempotent. One that
    fails is logged and remembered in :attr:`complete`, and the others are undone nevertheless.
    """

    def __init__(self, what: str) -> None:
        self.complete = True
        self._what = what
        self._steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []

    def add(self, step: str, undo: Callable[[], Awaitable[None]]) -> None:
        """Say how the next step is undone."""
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
                _log.error("an undo step failed", of=self._what, step=step, error=str(failure))
