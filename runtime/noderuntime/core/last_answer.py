"""Caches the last result of a probe that can hang, and renews it in the background."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from noderuntime.core import log, tasks
from noderuntime.core.errors import DeadlineExceeded, Internal, NoderuntimeError

_log = log.get(__name__)

T = TypeVar("T")


class LastAnswer(Generic[T]):
    """The last result or error of ``ask``, which runs at most once at a time. Use it on one event loop."""

    def __init__(self, name: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """``name`` is the name of what is probed, for errors and the log."""
        self._name = name
        self._ask = ask
        self._known: T | NoderuntimeError | None = None
        self._began = -math.inf
        self._running: asyncio.Task[None] | None = None

    async def get(self, *, seconds: float, renew: float, retry: float) -> T | NoderuntimeError:
        """Return the last result or error. Waits only for the first one.

        A result is renewed in the background after ``renew`` seconds, an error after ``retry`` seconds.
        DeadlineExceeded is returned if the probe takes longer than ``seconds``, even if it cannot be killed.
        """
        known = self._known
        lifetime = retry if isinstance(known, NoderuntimeError) else renew
        if self._running is None and self._age() > lifetime:
            self._began = time.monotonic()
            self._running = tasks.background(self._run(), name=f"ask {self._name}")
        if self._running is not None and known is None:
            await tasks.first(self._running, timeout=max(0.0, seconds - self._age()))
        if self._known is None or (self._running is not None and self._age() > seconds):
            return DeadlineExceeded(f"{self._name} did not answer within {seconds:g} s")
        return self._known

    async def _run(self) -> None:
        before = self._known
        self._known = after = await self._answer()
        self._running = None
        if isinstance(after, NoderuntimeError) and str(after) != str(before):
            _log.warning("probe failed", of=self._name, error=after)
        elif isinstance(before, NoderuntimeError) and not isinstance(after, NoderuntimeError):
            _log.info("probe succeeds again", of=self._name)

    async def _answer(self) -> T | NoderuntimeError:
        try:
            return await self._ask()
        except NoderuntimeError as error:
            return error
        except Exception as error:  # unexpected output of one probe must not fail the node's status
            _log.exception("probe failed unexpectedly", of=self._name)
            return Internal(f"{self._name} failed: {type(error).__name__}: {error}")

    def _age(self) -> float:
        """Return the seconds since the last probe started."""
        return time.monotonic() - self._began
