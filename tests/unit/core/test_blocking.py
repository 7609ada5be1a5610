import asyncio
import contextvars
import threading
import time

import pytest

from noderuntime.core import blocking
from noderuntime.core.blocking import Lane, apart, on_files
from noderuntime.core.errors import DeadlineExceeded, HostError, ResourceExhausted
from noderuntime.core.tasks import start


class Hang:
    """A call that blocks until the test releases it."""

    def __init__(self):
        self.entered, self.release, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self):
        self.entered.set()
        self.release.wait(10)
        self.ended.set()
        return "done"

    async def begun(self):
        while not self.entered.is_set():
            await asyncio.sleep(0.001)


@pytest.fixture
def hang():
    hang = Hang()
    yield hang
    hang.release.set()


@pytest.fixture
def lane():
    lane = Lane("test", 2)
    yield lane
    lane.close()


async def test_lane_returns_the_result_and_raises_the_error(lane):
    assert await lane.run(int, "7") == 7
    with pytest.raises(ValueError, match="words"):
        await lane.run(int, "words")


async def test_lane_call_sees_the_callers_context(lane):
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    assert await lane.run(variable.get) == "set"


async def test_lane_never_runs_more_than_its_threads(lane):
    hangs = [Hang() for _ in range(3)]
    calls = [start(lane.run(hang), name="call") for hang in hangs]
    await hangs[0].begun()
    await hangs[1].begun()
    assert lane.load().queued == 1
    assert not hangs[2].entered.is_set()
    for hang in hangs:
        hang.release.set()
    assert await asyncio.gather(*calls) == ["done"] * 3
    assert lane.load().queued == 0


async def test_full_lane_leaves_other_lanes_alone(lane, hang):
    other = Lane("other", 1)
    calls = [start(lane.run(hang), name="call") for _ in range(8)]
    await hang.begun()
    assert await asyncio.wait_for(other.run(int, "1"), 5) == 1
    other.close()
    hang.release.set()
    await asyncio.gather(*calls)


async def test_lane_drops_a_queued_call_of_a_cancelled_caller(lane, hang):
    busy = [start(lane.run(hang), name="busy") for _ in range(2)]
    ran = []
    queued = start(lane.run(ran.append, 1), name="queued")
    await hang.begun()
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    hang.release.set()
    await asyncio.gather(*busy)
    assert await lane.run(len, ran) == 0


async def test_cancelled_caller_awaits_the_end_of_a_begun_call(lane, hang):
    task = start(lane.run(hang), name="call")
    await hang.begun()
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, hang.release.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert hang.ended.is_set()


async def test_lanes_report_their_load_by_name(hang):
    lane = Lane("reported", 1)
    tasks = [start(lane.run(hang), name="call") for _ in range(2)]
    await hang.begun()
    queued, oldest, stalled = blocking.lanes()["reported"]
    assert (queued, oldest > 0, stalled > 0) == (1, True, True)
    hang.release.set()
    await asyncio.gather(*tasks)
    lane.close()


async def test_apart_runs_in_a_thread_of_its_own_that_ends():
    ran_in = await apart(threading.current_thread, what="look")
    assert ran_in is not threading.current_thread()
    ran_in.join(timeout=5)
    assert not ran_in.is_alive()


async def test_apart_ends_at_the_deadline_and_names_the_work(hang):
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"^stat /vol did not finish within 0.05 s$"):
        await apart(hang, what="stat /vol", seconds=0.05)
    assert time.monotonic() - began < 5


async def test_apart_fails_at_once_while_its_subject_hangs(hang):
    with pytest.raises(DeadlineExceeded):
        await apart(hang, what="stat /vol", seconds=0.05, subject="/vol")
    threads = threading.active_count()
    for _ in range(20):
        with pytest.raises(DeadlineExceeded, match="earlier call has been hanging"):
            await apart(hang, what="stat /vol", seconds=60, subject="/vol")
    assert threading.active_count() == threads
    assert await apart(lambda: 1, what="stat /other", subject="/other") == 1
    hang.release.set()
    while "/vol" in blocking._hung:
        await asyncio.sleep(0.001)
    assert await apart(lambda: 2, what="stat /vol", subject="/vol") == 2


async def test_apart_cancelled_caller_awaits_the_end(hang):
    task = start(apart(hang, what="call"), name="call")
    await hang.begun()
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, hang.release.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert hang.ended.is_set()


async def test_apart_abandoned_by_a_cancelled_reader(hang):
    task = start(apart(hang, what="call", abandon=True), name="call")
    await hang.begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert not hang.ended.is_set()


async def test_apart_passes_on_a_timeout_error_of_the_call():
    def call():
        raise TimeoutError("of the call")

    with pytest.raises(TimeoutError, match="of the call"):
        await apart(call, what="call")


async def test_on_files_names_a_full_disk():
    def full():
        raise OSError(28, "No space left on device")

    def broken():
        raise OSError(5, "Input/output error")

    with pytest.raises(ResourceExhausted, match=r"^write x: the disk is full"):
        await on_files("write x", full)
    with pytest.raises(HostError, match=r"^write x: Input/output error"):
        await on_files("write x", broken)
