"""Work that several callers want at once: done once, and ended when the last of them goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Joint(Generic[T]):
    """What is being done now, by key. For use on one event loop."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Job[T]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return self._find(key) is not None

    async def do(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the work under a key, which ``make`` begins unless it is under way.

        All who wait get the same result or error. A caller who is cancelled only goes away; the last
        one cancels the work, and waits for its end.
        """
        job = self._find(key)
        if job is None:
            job = self._running[key] = _Job(asyncio.ensure_future(make()))
            job.task.add_done_callback(lambda _: self._forget(key, job))
        job.waiting += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            job.waiting -= 1
            if not job.waiting and not job.task.done():
                self._forget(key, job)
                job.task.cancel()
                await asyncio.wait([job.task])
                if not job.task.cancelled():
                    job.task.exception()  # nobody is left to hear of it

    def _find(self, key: Hashable) -> _Job[T] | None:
        """Return the work that is still under way: what has ended may not be forgotten yet."""
        job = self._running.get(key)
        return None if job is None or job.task.done() else job

    def _forget(self, key: Hashable, job: _Job[T]) -> None:
        if self._running.get(key) is job:
            del self._running[key]


class _Job(Generic[T]):
    def __init__(self, task: asyncio.Future[T]) -> None:
        self.task = task
        self.waiting = 0


async def concurrently(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Do everything at once; when one part fails, cancel the others, wait for them, and raise its error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in work]
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]
