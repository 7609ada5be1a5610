"""Many requests at the same time."""

from __future__ import annotations

import asyncio

import pytest

from noderuntime_operator.concurrency import CONCURRENCY, for_each
from noderuntime_operator.kube import KubeError


async def test_results_are_in_the_order_of_the_items() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0.01 * (3 - number))
        return number

    assert await for_each([0, 1, 2], work) == [0, 1, 2]
    assert await for_each([], work) == []


async def test_requests_at_the_same_time_are_bounded() -> None:
    running = most = 0

    async def work(_number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    assert len(await for_each(range(1000), work)) == 1000
    assert most == CONCURRENCY


async def test_first_failure_ends_the_others() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        if number == 3:
            raise KubeError(403, "refused")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(KubeError, match="refused"):
        await asyncio.wait_for(for_each(range(1000), work), 5)
    assert len(ended) == CONCURRENCY - 1


async def test_stop_is_obeyed_though_a_request_fails_because_of_it() -> None:
    begun = asyncio.Event()

    async def work(_number: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KubeError(0, "the connection was closed") from None

    task = asyncio.create_task(for_each([1], work))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
