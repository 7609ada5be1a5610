"""The event loop of a process, from its start to an end that nothing can delay.

``asyncio.run`` waits at its end for every task and for every thread of the default executor, and so for
a filesystem that hangs. Here both are left behind.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from noderuntime.core import log
from noderuntime.core.blocking import LookupExecutor

_log = log.get(__name__)

_END_SECONDS = 1.0
"""How long tasks can take to end after they were cancelled."""

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run an event loop until the work has ended; return what it returned or raise what it raised.

    Tasks that are left are cancelled. If one does not end within a second, the process exits without it.
    """
    return asyncio.run(_run(work))


async def _run(work: Coroutine[Any, Any, T]) -> T:
    asyncio.get_running_loop().set_default_executor(LookupExecutor())
    try:
        result = await work
    except BaseException as error:
        await _end_tasks(error)
        raise
    await _end_tasks(None)
    return result


async def _end_tasks(error: BaseException | None) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    hanging = (await asyncio.wait(tasks, timeout=_END_SECONDS))[1] if tasks else ()
    if hanging:
        names = sorted(task.get_name() for task in hanging)
        _log.error("process exits without waiting for tasks that hang", tasks=names, error=error)
        sys.stdout.flush()
        os._exit(0 if error is None else 1)
