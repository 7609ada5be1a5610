"""Calls that may block: the only module that takes them off the event loop.

There are three places for such a call:

* **The loop itself**, for what was measured to take far less than a millisecond and touches no disk that
  can hang: ``/proc``, ``/sys``, pidfds, tmpfs.
* A :class:`Lane`: a few threads for one purpose, for files that belong to the daemon or the node. One
  purpose cannot starve another.
* :func:`apart`: a thread of its own, with a deadline, for a path that a pod, a volume or an image controls,
  and for calls that change the thread they run in (``setns``).

All threads are daemon threads: the daemon's shutdown does not wait for one that hangs.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

from noderuntime.core.errors import DeadlineExceeded, file_error, os_errors

T = TypeVar("T")

APART_SECONDS = 10.0
"""The usual deadline of :func:`apart`."""


class Load(NamedTuple):
    """What a lane has to do."""

    queued: int
    """Calls that no thread has begun."""
    oldest: float
    """Seconds that the oldest running call has run; 0 when none runs."""
    stalled: float
    """Seconds since a thread took up a call, while others wait; 0 when none waits."""


class Lane:
    """At most ``threads`` threads that run blocking calls in the order in which they were requested."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self._limit = threads
        self._started = 0
        self._idle = threading.Semaphore(0)
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._began: dict[int, float] = {}
        _lanes.add(self)

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Return what the call returned or raise what it raised.

        If the caller is cancelled, a call that has not begun is dropped, and the end of one that has
        begun is awaited: what the caller does next must not meet a call that still runs.
        """
        return await _end_of(self._put(call, arguments), math.inf)

    def begin(self, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Request a call and return its outcome, which the caller awaits later."""
        return asyncio.wrap_future(self._put(call, arguments))

    def load(self) -> Load:
        """Return what the lane has to do now."""
        queued, began, now = self._queue.qsize(), tuple(self._began.values()), time.monotonic()
        if not began:
            return Load(queued, 0.0, 0.0)
        return Load(queued, now - min(began), now - max(began) if queued else 0.0)

    def close(self) -> None:
        """End the threads after the calls that were requested; none may be requested afterwards."""
        for _ in range(self._started):
            self._queue.put(None)

    def _put(self, call: Callable[..., T], arguments: tuple[Any, ...]) -> Future[T]:
        outcome: Future[T] = Future()
        self._queue.put(_Call(outcome, contextvars.copy_context(), call, arguments))
        if not self._idle.acquire(blocking=False) and self._started < self._limit:
            self._started += 1
            threading.Thread(target=self._work, name=f"noderuntime-{self.name}", daemon=True).start()
        return outcome

    def _work(self) -> None:
        thread = threading.get_ident()
        while (wanted := self._queue.get()) is not None:
            self._began[thread] = time.monotonic()
            wanted.run()
            del self._began[thread], wanted
            self._idle.release()


_lanes: WeakSet[Lane] = WeakSet()

FILES = Lane("files", 4)
"""Files of the daemon and of the node: state, run directory, configuration, logs' directories."""
CGROUPS = Lane("cgroups", 2)
"""Cgroups: a write can take 20 ms."""
IMAGES = Lane("images", 4)
"""Content and layers: hashing, writing, certificates."""


def lanes() -> dict[str, Load]:
    """Return what each lane has to do, by its name."""
    return {lane.name: lane.load() for lane in sorted(_lanes, key=lambda lane: lane.name)}


async def apart(
    call: Callable[[], T],
    *,
    what: str,
    seconds: float = APART_SECONDS,
    subject: str = "",
    abandon: bool = False,
) -> T:
    """Run the call in a new thread and return what it returned or raise what it raised.

    ``what`` says in errors what the call was for. DeadlineExceeded when it has not ended after
    ``seconds``; its thread stays until the kernel lets go of it. While a call on the same ``subject`` hangs
    past its deadline, further ones fail at once, so that retries do not pile up threads.

    A cancelled caller first waits for the call's end or its deadline; with ``abandon`` (calls that
    only read) it leaves at once.
    """
    hung = _hung.get(subject)
    if hung is not None:
        raise DeadlineExceeded(f"{what}: an earlier call hangs, for {time.monotonic() - hung:.0f} s now")
    outcome: Future[T] = Future()
    began = time.monotonic()
    wanted = _Call(outcome, contextvars.copy_context(), call, ())
    arguments = (wanted, what, began)
    threading.Thread(target=_run_apart, args=arguments, name="noderuntime-apart", daemon=True).start()
    try:
        return await _end_of(outcome, seconds, abandon=abandon)
    except _Late:
        if subject:
            _hung[subject] = began
            outcome.add_done_callback(lambda _: _hung.pop(subject, None))
        raise DeadlineExceeded(f"{what} did not finish within {seconds:g} s") from None


async def on_files(action: str, call: Callable[[], T], *, abandon: bool = False) -> T:
    """Run work on files of ours that takes as long as it takes; ``action`` says in errors what it was for.

    ResourceExhausted when the disk is full, HostError for other system calls that failed.
    """
    with os_errors(action, file_error):
        return await apart(call, what=action, seconds=math.inf, abandon=abandon)


_apart: dict[int, tuple[str, float]] = {}
_hung: dict[str, float] = {}
"""Subjects whose call has not ended at its deadline, with the time (monotonic) at which it began."""


def calls_apart() -> list[tuple[str, float]]:
    """Return what each call of :func:`apart` is for and how many seconds it has run."""
    now = time.monotonic()
    return [(what, now - began) for what, began in tuple(_apart.values())]


def _run_apart(wanted: _Call, what: str, began: float) -> None:
    thread = threading.get_ident()
    _apart[thread] = what, began
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
    """Wait for a call's end; _Late at the deadline. A cancelled caller waits as well, unless ``abandon``."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: the call outlived the daemon's
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
