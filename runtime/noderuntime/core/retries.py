"""Steps that are repeated in the background until they succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from noderuntime.core import log, tasks
from noderuntime.core.backoff import growing
from noderuntime.core.errors import NoderuntimeError

_log = log.get(__name__)

ATTEMPT_SECONDS = 10.0
"""How long an attempt prevents others from starting, and how long its caller waits for it."""
LONGEST_SECONDS = 600.0
"""How long an attempt can take. Each operation of a step has a shorter deadline of its own."""
_AT_ONCE = 16
_PAUSES = (1.0, 60.0)

Step = Callable[[], Awaitable[None]]


class Retries:
    """Steps that must succeed in the end: independent of each other, a few at a time, with growing pauses.

    A slow attempt is not cancelled: a network plugin that needs longer than an attempt would start over
    each time and never finish. An error of any type is logged and concerns no other step. A step must be
    idempotent and cancellable at any point. For use on one event loop.
    """

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        seconds: float = ATTEMPT_SECONDS,
        longest: float = LONGEST_SECONDS,
    ) -> None:
        self._sleep = sleep
        self._seconds = seconds
        self._longest = longest
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return the number of steps that are slow or repeated."""
        return len(self._tasks)

    async def attempt(self, what: str, step: Step) -> bool:
        """Run a step and return whether it succeeded within :data:`ATTEMPT_SECONDS`.

        A slow attempt continues in the background, and a failed one is repeated there until it succeeds.
        ``what`` names the step in the log.
        """
        attempt = await self._begin(what, step)
        if attempt.done() and attempt.result():
            return True
        task = tasks.background(self._repeat(what, step, attempt), name=f"retry: {what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return False

    async def close(self) -> None:
        """Stop repeating and cancel the attempts in the background."""
        for task in self._tasks:
            task.cancel()
        await tasks.settle(*self._tasks)

    async def _repeat(self, what: str, step: Step, attempt: asyncio.Task[bool]) -> None:
        failures = 0
        while not await attempt:
            failures += 1
            await self._sleep(growing(failures, *_PAUSES))
            attempt = await self._begin(what, step)
        _log.info("delayed work succeeded", work=what)

    async def _begin(self, what: str, step: Step) -> asyncio.Task[bool]:
        """Start an attempt; return when it has ended or makes room for others because it is slow."""
        async with self._places:
            attempt = tasks.start(self._succeeds(what, step), name=what)
            try:
                await tasks.first(attempt, timeout=self._seconds)
            except asyncio.CancelledError:
                attempt.cancel()
                await tasks.settle(attempt)
                raise
        if not attempt.done():
            _log.warning("work is slow, to be continued", work=what, seconds=self._seconds)
        return attempt

    async def _succeeds(self, what: str, step: Step) -> bool:
        try:
            async with asyncio.timeout(self._longest):
                await step()
        except TimeoutError:
            _log.warning("work did not finish in time, to be retried", work=what, seconds=self._longest)
        except NoderuntimeError as error:
            _log.warning("work failed, to be retried", work=what, error=error)
        except Exception:
            _log.exception("work failed unexpectedly, to be retried", work=what)
        else:
            return True
        return False
