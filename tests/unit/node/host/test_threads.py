import asyncio
import threading

import pytest

from noderuntime.node.host.threads import in_own_thread


async def test_result_and_error_come_back():
    assert await in_own_thread(lambda: 7) == 7
    with pytest.raises(ValueError, match="words"):
        await in_own_thread(lambda: int("words"))


async def test_the_call_runs_in_a_thread_that_ends():
    ran_in = await in_own_thread(threading.current_thread)
    assert ran_in is not threading.current_thread()
    ran_in.join(timeout=5)
    assert not ran_in.is_alive()


async def test_a_cancelled_caller_waits_until_the_call_has_ended():
    release, entered, ended = threading.Event(), threading.Event(), threading.Event()

    def call():
        entered.set()
        release.wait(5)
        ended.set()
        raise ValueError("nobody listens")

    task = asyncio.create_task(in_own_thread(call))
    await asyncio.to_thread(entered.wait, 5)
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, release.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_reader_can_be_abandoned():
    release, entered = threading.Event(), threading.Event()

    def call():
        entered.set()
        release.wait(5)

    task = asyncio.create_task(in_own_thread(call, abandon=True))
    await asyncio.to_thread(entered.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 2)
    release.set()
