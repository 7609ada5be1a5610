"""A report of the daemon's current tasks, locks, lanes and calls apart, for the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import FrameType
from typing import Any

from noderuntime.core import blocking, log, tasks

_log = log.get(__name__)

_DEPTH = 40


def report() -> None:
    """Log every task with its stack, every held lock with its holder, and the load of every lane."""
    for task in asyncio.all_tasks():
        _log.info("task", task=task.get_name(), stack=stack(task))
    for lock, holder in tasks.held_locks().items():
        _log.info("lock held", lock=lock, task=holder)
    for name, load in blocking.lanes().items():
        _log.info("lane", lane=name, queued=load.queued, oldest_seconds=round(load.oldest, 3))
    for what, seconds in blocking.calls_apart():
        _log.info("call apart", call=what, seconds=round(seconds, 3))


def stack(task: asyncio.Task[Any]) -> str:
    """Return the await stack of a task as ``function file:line``, innermost last."""
    return " > ".join(_places(task.get_coro()))


def _places(awaited: Any) -> Iterator[str]:
    """Yield the frames of a chain of awaits. ``Task.get_stack`` returns the outermost frame only."""
    for _ in range(_DEPTH):
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        if not isinstance(frame, FrameType):
            return
        file = frame.f_code.co_filename.rpartition("/noderuntime/")[2]
        yield f"{frame.f_code.co_qualname} {file}:{frame.f_lineno}"
        awaited = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")


def _first(value: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(value, name, None)) is not None), None)
