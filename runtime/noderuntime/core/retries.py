"""Steps that are repeated in the background until they succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from noderuntime.core import log, tasks
from noderuntime.core.errors import NoderuntimeError

_log = log.get(__name__)

ATTEMPT_SECONDS = 10.0
"""How long one attempt may take."""
_AT_ONCE = 16
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

Step = Callable[[], Awaitable[None]]


class Retries:
    """Steps that must succeed in the end: each on its own, a few at a time, with growing pauses.

    A step can be cancelled at any point and taken again. What it raises, of any type, is logged and concerns
    no other step. For use on one event loop.
    """

    def __init__(
        self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, seconds: float = ATTEMPT_SECONDS
    ) -> None:
        self._sleep = sleep
        self._seconds = seconds
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Count the steps that failed and are repeated."""
        return len(self._tasks)

    async def attempt(self, what: str, step: Step) -> bool:
        """Take a step and return whether it succeeded; if not, the background repeats it until it does.

        ``what`` names the step in the log.
        """
        if await self._succeeds(what, step):
            return True
        task = tasks.background(self._repeat(what, step), name=f"retry: {what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return False

    async def close(self) -> None:
        """Stop repeating; an attempt under way is cancelled."""
        for task in self._tasks:
            task.cancel()
        await tasks.settle(*self._tasks)

    async def _repeat(self, what: str, step: Step) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._sleep(pause)
            if await self._succeeds(what, step):
                _log.info("a retry succeeded", work=what)
                return
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _succeeds(self, what: str, step: Step) -> bool:
        async with self._places:
            try:
                async with asyncio.timeout(self._seconds):
                    await step()
            except TimeoutError:
                _log.warning("work did not finish in time, to be retried", work=what, seconds=self._seconds)
            except NoderuntimeError as error:
                _log.warning("work failed, to be retried", work=what, error=error)
            except Exception:
                _log.exception("work failed unexpectedly, to be retried", work=what)
            else:
                return True
        return False
