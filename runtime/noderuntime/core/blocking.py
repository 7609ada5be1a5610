"""Calls that may block: the only module that takes them off the event loop.

A blocking call has three possible places:

* **The event loop**, for calls that were measured to take far less than a millisecond and access no disk
  that can hang: ``/proc``, ``/sys``, pidfds, tmpfs.
* A :class:`Lane`: a few threads for one purpose, for files of the daemon or the node. One purpose cannot
  starve another.
* :func:`apart`: a thread of its own, with a deadline, for paths that a pod, a volume or an image controls,
  and for calls that change the state of their thread (``setns``).

All threads are daemon threads: shutdown does not wait for one that hangs.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

from noderuntime.core.errors import DeadlineExceeded, file_error, os_errors

T = TypeVar("T")

APART_SECONDS = 10.0
"""The usual deadline of :func:`apart`."""


class Load(NamedTuple):
    """The load of a lane."""

    queued: int
    """Calls that no thread has started."""
    oldest: float
    """Seconds since the start of the oldest running call; 0 if none runs."""
    stalled: float
    """Seconds since a thread last started a call, while others wait; 0 if none waits."""


class Lane:
    """At most ``threads`` threads that run blocking calls in the order of the requests."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self._limit = threads
        self._started = 0
        self._idle = threading.Semaphore(0)
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._started_at: dict[int, float] = {}
        _lanes.add(self)

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run the call and return its result or raise its error.

        If the caller is cancelled, a call that has not started is dropped, and a call that has started is
        awaited: the caller's next steps must not overlap with it.
        """
        return await _end_of(self.submit(call, *arguments), math.inf)

    def begin(self, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Queue a call and return a future of its result."""
        return asyncio.wrap_future(self.submit(call, *arguments))

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Queue a call and return its outcome, which needs no event loop."""
        outcome: Future[T] = Future()
        self._queue.put(_Call(outcome, contextvars.copy_context(), call, arguments))
        if not self._idle.acquire(blocking=False) and self._started < self._limit:
            self._started += 1
            threading.Thread(target=self._work, name=f"noderuntime-{self.name}", daemon=True).start()
        return outcome

    def load(self) -> Load:
        """Return the current load."""
        queued, started, now = self._queue.qsize(), tuple(self._started_at.values()), time.monotonic()
        if not started:
            return Load(queued, 0.0, 0.0)
        return Load(queued, now - min(started), now - max(started) if queued else 0.0)

    def close(self) -> None:
        """End the threads after the queued calls. No call may be queued afterwards."""
        for _ in range(self._started):
            self._queue.put(None)

    def _work(self) -> None:
        thread = threading.get_ident()
        while (wanted := self._queue.get()) is not None:
            self._started_at[thread] = time.monotonic()
            wanted.run()
            del self._started_at[thread], wanted
            self._idle.release()


_lanes: WeakSet[Lane] = WeakSet()

FILES = Lane("files", 4)
"""Files of the daemon and of the node: state, run directory, configuration, log directories."""
CGROUPS = Lane("cgroups", 2)
"""Cgroups. A write can take 20 ms."""
IMAGES = Lane("images", 4)
"""Content and layers: hashing, writing, certificates."""


class LookupExecutor(ThreadPoolExecutor):
    """asyncio's default executor, which looks up names of hosts: a lane, which no exit waits for."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)  # it starts none
        self._lane = Lane("lookups", 8)

    def submit(self, call: Callable[..., T], /, *arguments: Any, **options: Any) -> Future[T]:
        """Queue a call."""
        return self._lane.submit(partial(call, *arguments, **options))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads after the queued calls, and wait for none of them."""
        self._lane.close()


def lanes() -> dict[str, Load]:
    """Return the load of each lane by its name."""
    return {lane.name: lane.load() for lane in sorted(_lanes, key=lambda lane: lane.name)}


async def apart(
    call: Callable[[], T],
    *,
    what: str,
    seconds: float = APART_SECONDS,
    subject: str = "",
    abandon: bool = False,
) -> T:
    """Run the call in a new thread and return its result or raise its error.

    ``what`` names the call in errors. DeadlineExceeded if it has not ended after ``seconds``; its thread
    exists until the kernel returns. While a call on the same ``subject`` hangs past its deadline, further
    calls fail at once, so that retries do not accumulate threads.

    A cancelled caller first waits for the end of the call or its deadline. With ``abandon`` (calls that
    only read) it does not wait.
    """
    hung = _hung.get(subject)
    if hung is not None:
        raise DeadlineExceeded(
            f"{what}: an earlier call has been hanging for {time.monotonic() - hung:.0f} s"
        )
    outcome: Future[T] = Future()
    started = time.monotonic()
    wanted = _Call(outcome, contextvars.copy_context(), call, ())
    arguments = (wanted, what, started)
    threading.Thread(target=_run_apart, args=arguments, name="noderuntime-apart", daemon=True).start()
    try:
        return await _end_of(outcome, seconds, abandon=abandon)
    except _Late:
        if subject:
            _hung[subject] = started
            outcome.add_done_callback(lambda _: _hung.pop(subject, None))
        raise DeadlineExceeded(f"{what} did not finish within {seconds:g} s") from None


async def on_files(action: str, call: Callable[[], T], *, abandon: bool = False) -> T:
    """Run a call on the daemon's own files without a deadline. ``action`` names it in errors.

    ResourceExhausted if the disk is full, HostError for other failed system calls.
    """
    with os_errors(action, file_error):
        return await apart(call, what=action, seconds=math.inf, abandon=abandon)


_apart: dict[int, tuple[str, float]] = {}
_hung: dict[str, float] = {}
"""Subjects whose call has not ended at its deadline, with the time (monotonic) of its start."""


def calls_apart() -> list[tuple[str, float]]:
    """Return the name of each running call of :func:`apart` and the seconds since its start."""
    now = time.monotonic()
    return [(what, now - started) for what, started in tuple(_apart.values())]


def _run_apart(wanted: _Call, what: str, started: float) -> None:
    thread = threading.get_ident()
    _apart[thread] = what, started
    try:
        wanted.run()
    finally:
        del _apart[thread]


@dataclass(slots=True)
class _Call:
    outcome: Future[Any]
    context: contextvars.Context
    call: Callable[..., Any]
    arguments: tuple[Any, ...]

    def run(self) -> None:
        if not self.outcome.set_running_or_notify_cancel():
            return
        try:
            result = self.context.run(self.call, *self.arguments)
        except BaseException as error:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)


class _Late(Exception):
    """A call has not ended at its deadline."""


async def _end_of(outcome: Future[T], seconds: float, *, abandon: bool = False) -> T:
    """Return the call's result. _Late at the deadline. A cancelled caller waits too, unless ``abandon``."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: the call has outlived it
            loop.call_soon_threadsafe(ended.set)

    outcome.add_done_callback(wake)
    cancelled: asyncio.CancelledError | None = None
    try:
        async with asyncio.timeout(None if seconds == math.inf else seconds) as deadline:
            while not outcome.done():
                try:
                    await ended.wait()
                except asyncio.CancelledError as error:
                    if abandon or deadline.expired() or outcome.cancel():
                        raise
                    cancelled = error
    except TimeoutError:
        raise cancelled or _Late from None
    if cancelled is not None:
        raise cancelled
    return outcome.result()
