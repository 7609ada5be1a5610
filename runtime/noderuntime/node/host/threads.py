"""One throw-away thread for a call that may hang or that changes the thread it runs in.

A pool is not enough: a mount that never answers would take a worker with it,
and a thread that joined other namespaces can never be used for anything else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_own_thread(call: Callable[[], T], *, abandon: bool = False) -> T:
    """Run the call in a new daemon thread and return what it returned or raise what it raised.

    A cancelled caller first waits for the call's end, because whatever it does next
    must find a world that stands still; with ``abandon`` (calls that only read) it goes at once.
    """
    done: Future[T] = Future()

    def body() -> None:
        try:
            done.set_result(call())
        except Exception as error:  # whatever it is, it belongs to the awaiting task
            done.set_exception(error)

    threading.Thread(target=body, name="noderuntime-call", daemon=True).start()
    outcome = asyncio.wrap_future(done)
    try:
        return await asyncio.shield(outcome)
    except asyncio.CancelledError:
        if not abandon:
            await asyncio.wait([outcome])
        outcome.add_done_callback(_forget)
        raise


def _forget(outcome: asyncio.Future[T]) -> None:
    """Take note of an error that nobody waits for, so that asyncio does not report it."""
    if not outcome.cancelled():
        outcome.exception()
