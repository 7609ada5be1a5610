"""Tasks of the event loop: the only module that starts one.

Every task has a name, which the daemon's report shows, and a failure that reaches no caller is logged.

=====================  ============================================================================
:func:`start`          a task that its owner awaits or cancels
:func:`background`     a task that no caller awaits; a failure is logged
:func:`finish`         wait for work that continues if the caller is cancelled
:func:`settle`         wait for the end of a task, also while the caller is being cancelled
:class:`Scope`         tasks that end with a block of code
:func:`concurrently`   several coroutines at once; the first failure cancels the others
:func:`together`       several coroutines at once; none is cut off
:class:`Joint`         work shared by its callers, cancelled when the last of them leaves
:class:`Work`          the daemon's locks, and verbs whose result is kept for a retry
=====================  ============================================================================
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar
from weakref import WeakSet, WeakValueDictionary

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError, ResourceExhausted

_log = log.get(__name__)

KEEP_SECONDS = 120.0
"""How long a result that no caller received is kept for the retry."""
MOST_WAITING = 32
"""Tasks that may wait for one lock: a kubelet's retries must not pile up behind an object that hangs."""

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()  # asyncio itself holds tasks weakly


def start(work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Start a task that the caller awaits, or cancels and awaits."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


def background(work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Start a task that no caller has to await; a failure is logged."""
    task = start(work, name=name)
    task.add_done_callback(_report)
    return task


def running() -> list[asyncio.Task[Any]]:
    """Return the tasks that were started here and have not ended."""
    return list(_running)


async def finish(work: Coroutine[Any, Any, T], *, name: str) -> T:
    """Wait for the work, which continues if the caller is cancelled; its failure is logged then."""
    return await _wait_for(start(work, name=name))


async def settle(*tasks: asyncio.Future[Any]) -> None:
    """Wait until all tasks have ended, whatever their outcome. A cancellation is raised after that."""
    cancelled: asyncio.CancelledError | None = None
    while waiting := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def first(*tasks: asyncio.Task[Any], timeout: float | None = None) -> None:
    """Wait until one of the tasks has ended, or until the timeout (seconds). No task is cancelled."""
    await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


class Scope:
    """Tasks that end with an ``async with`` block: running ones are cancelled and awaited.

    The outcome of a task that ended before is for the block: it reads ``task.result()`` where a failure
    matters. A task that fails while it is cancelled is logged.
    """

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start a task of the block."""
        task = start(work, name=name)
        self._tasks.append(task)
        return task

    async def __aenter__(self) -> Scope:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cut_off = [task for task in self._tasks if task.cancel()]
        await settle(*self._tasks)
        for task in self._tasks:
            _retrieve(task)
        for task in cut_off:
            _report(task)


class Group(asyncio.TaskGroup):
    """A TaskGroup whose tasks have names."""

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start a task of the group."""
        return self.create_task(work, name=name)


async def concurrently(*work: Coroutine[Any, Any, T], name: str) -> list[T]:
    """Return all results. If a coroutine fails, cancel the others, wait for them, and raise its error."""
    try:
        async with Group() as group:
            tasks = [group.start(part, name=name) for part in work]
    except BaseExceptionGroup as failures:
        cause = failures.exceptions[0]
        raise cause from cause.__cause__
    return [task.result() for task in tasks]


async def together(*work: Coroutine[Any, Any, None], name: str) -> None:
    """Wait for all coroutines, then raise the error of the first, in order, that failed; log the others.

    A cancelled caller cancels them.
    """
    async with Scope() as scope:
        tasks = [scope.start(part, name=name) for part in work]
        if tasks:
            await asyncio.wait(tasks)
    failed = [task for task in tasks if _retrieve(task) is not None]
    for task in failed[1:]:
        _report(task)
    if failed:
        failed[0].result()


class Joint(Generic[T]):
    """Work that concurrent callers share, so that it runs once. Use it on one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: dict[Hashable, _Job[T]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return self._find(key) is not None

    async def do(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the work under a key. ``make`` starts it unless it is running.

        All callers get the same result or error. A cancelled caller stops waiting; the last one cancels
        the work and waits for its end.
        """
        job = self._find(key)
        if job is None:
            job = self._jobs[key] = _Job(start(make(), name=self._name))
            job.task.add_done_callback(lambda _: self._forget(key, job))
        job.waiting += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            job.waiting -= 1
            if not job.waiting and not job.task.done():
                self._forget(key, job)
                job.task.cancel()
                await settle(job.task)
                _report(job.task)

    def _find(self, key: Hashable) -> _Job[T] | None:
        job = self._jobs.get(key)
        return None if job is None or job.task.done() else job

    def _forget(self, key: Hashable, job: _Job[T]) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]


class Lock(asyncio.Lock):
    """A lock that records the task that holds it, and limits the number of waiting tasks."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.holder = ""
        self._name = name
        self._waiting = 0

    async def acquire(self) -> Literal[True]:
        """Acquire the lock. ResourceExhausted if :data:`MOST_WAITING` tasks wait: the holder hangs."""
        if self._waiting >= MOST_WAITING:
            raise ResourceExhausted(
                f"{MOST_WAITING} calls wait for {self._name}, whose lock is held by: {self.holder}"
            )
        self._waiting += 1
        try:
            await super().acquire()
        finally:
            self._waiting -= 1
        task = asyncio.current_task()
        self.holder = task.get_name() if task is not None else ""
        return True

    def release(self) -> None:
        """Release the lock to the next task."""
        self.holder = ""
        super().release()


class Work:
    """The daemon's locks per object, and verbs that continue after their caller is cancelled.

    A kubelet gives up on a call at its deadline and repeats it. A partly created sandbox would be the
    worst outcome, so a verb runs in its own task and a cancelled caller only stops waiting.
    Use it on one event loop.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._kept: dict[Hashable, _Kept] = {}
        _works.add(self)

    def lock(self, object_id: str) -> Lock:
        """Return the lock that serializes all work on one object."""
        lock = self._locks.get(object_id)
        if lock is None:
            lock = self._locks[object_id] = Lock(object_id)
        return lock

    def locks(self) -> list[tuple[str, Lock]]:
        """Return the locks in use with their names."""
        return list(self._locks.items())

    async def finish(self, work: Coroutine[Any, Any, T], *, name: str) -> T:
        """Wait for the work, which continues if the caller is cancelled; its failure is logged then."""
        return await _wait_for(self._start(work, name))

    async def once(
        self, key: Hashable, request: Hashable, make: Callable[[], Coroutine[Any, Any, T]], *, name: str
    ) -> T:
        """Like :meth:`finish`, but at most one such work runs under a key at a time.

        A call with an equal ``request`` joins running work, or receives a result that no caller has
        received; results are kept for :data:`KEEP_SECONDS`, failures are not kept. A call with another
        request waits until the running work ends, and then does its own.
        """
        while (kept := self._kept.get(key)) is not None and kept.request != request:
            if kept.task.done():
                self.forget(key)
            else:
                await asyncio.wait([kept.task])
        if kept is None:
            kept = self._kept[key] = _Kept(request, self._start(make(), name))
            kept.task.add_done_callback(lambda _: self._keep(key, kept))
        result: T = await _wait_for(kept.task)  # if cancelled at this moment, the result stays kept
        self._drop(key, kept)
        return result

    def forget(self, key: Hashable) -> None:
        """Drop a kept result because its object is being removed."""
        kept = self._kept.get(key)
        if kept is not None and kept.task.done():
            del self._kept[key]

    def kept(self) -> int:
        """Return the number of running verbs and results kept for a retry."""
        return len(self._kept)

    def background(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start work that no caller has to await; a failure is logged."""
        task = self._start(work, name)
        task.add_done_callback(_report)
        return task

    async def drain(self, seconds: float) -> None:
        """Wait for running work, at most this long. The next recovery undoes the rest."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    def _start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = start(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _keep(self, key: Hashable, kept: _Kept) -> None:
        if kept.task.cancelled() or kept.task.exception() is not None:
            self._drop(key, kept)
        else:
            asyncio.get_running_loop().call_later(KEEP_SECONDS, self._drop, key, kept)

    def _drop(self, key: Hashable, kept: _Kept) -> None:
        if self._kept.get(key) is kept:
            del self._kept[key]


_works: WeakSet[Work] = WeakSet()


def held_locks() -> dict[str, str]:
    """Return the names of the held locks, each with the name of the task that holds it."""
    locks = [(name, lock) for work in _works for name, lock in work.locks()]
    return {name: lock.holder for name, lock in sorted(locks, key=lambda named: named[0]) if lock.locked()}


@dataclass(eq=False, slots=True)
class _Kept:
    request: Hashable
    task: asyncio.Task[Any]


@dataclass(eq=False, slots=True)
class _Job(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


_callers: Counter[asyncio.Task[Any]] = Counter()
"""How many callers wait for each task."""


async def _wait_for(task: asyncio.Task[T]) -> T:
    """Return the task's result. It continues if the caller is cancelled.

    A failure that no caller receives is logged once.
    """
    _callers[task] += 1
    task.remove_done_callback(_report)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if _callers[task] == 1:
            task.add_done_callback(_report)
        raise
    finally:
        _callers[task] -= 1
        if not _callers[task]:
            del _callers[task]


def _report(task: asyncio.Task[Any]) -> None:
    error = _retrieve(task)
    if isinstance(error, NoderuntimeError):
        _log.warning("work failed and no caller received the error", work=task.get_name(), error=error)
    elif error is not None:
        text = "".join(traceback.format_exception(error))
        _log.error("work failed unexpectedly", work=task.get_name(), error=text)


def _retrieve(task: asyncio.Task[Any]) -> BaseException | None:
    """Return an ended task's failure and mark it as retrieved; None for a cancelled task."""
    return None if task.cancelled() else task.exception()
