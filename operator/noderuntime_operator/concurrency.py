"""Send many requests at the same time, but not too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

CONCURRENCY = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


async def for_each(items: Sequence[Item], work: Callable[[Item], Awaitable[Result]]) -> list[Result]:
    """Return the results of the work for all items, in their order; the first failure ends the others."""
    if not items:
        return []
    queue = enumerate(items)
    results: dict[int, Result] = {}

    async def worker() -> None:
        for index, item in queue:
            results[index] = await work(item)

    # Neither a TaskGroup nor gather: in Python 3.11 both lose a cancellation if a child fails at that moment.
    workers = [asyncio.create_task(worker()) for _ in items[:CONCURRENCY]]
    try:
        await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in workers:
            task.cancel()
        outcomes = await asyncio.gather(*workers, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [results[index] for index in sorted(results)]
