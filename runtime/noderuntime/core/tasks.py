"""What is happening right now: locks per object, and work that outlives the call that asked for it.

A kubelet gives up on a call at its deadline and asks again. Half of a sandbox would be
the worst answer, so the work of a verb runs in a task of its own: a cancelled call only
stops waiting. What :meth:`Work.once` finished while nobody waited is kept for the retry.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError

_log = log.get(__name__)

T = TypeVar("T")


class Work:
    """Locks and running tasks of one daemon. For use on one event loop."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[Any]] = set()
        self._kept: dict[Hashable, asyncio.Task[Any]] = {}

    def lock(self, object_id: str) -> asyncio.Lock:
        """Return the lock that orders all work on one object."""
        lock = self._locks.get(object_id)
        if lock is None:
            lock = self._locks[object_id] = asyncio.Lock()
        return lock

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the work; go through with it even if the caller is cancelled."""
        return await asyncio.shield(self.spawn(work))

    async def once(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Like :meth:`finish`, but join work under the same key, and take a result nobody has taken yet.

        A failure is not kept: the next call starts anew.
        """
        task: asyncio.Task[T] | None = self._kept.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._kept[key] = self.spawn(make())
        try:
            return await asyncio.shield(task)
        finally:
            if task.done() and self._kept.get(key) is task:
                del self._kept[key]

    def forget(self, key: Hashable) -> None:
        """Drop a kept result: what it speaks of is going away."""
        task = self._kept.get(key)
        if task is not None and task.done():
            del self._kept[key]

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that nobody need wait for; a failure that is no NoderuntimeError is logged."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self, seconds: float) -> None:
        """Wait for the work under way, at most that long; what is left is undone by the next recovery."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, NoderuntimeError):
            _log.error("work failed in an unforeseen way", error="".join(traceback.format_exception(error)))
