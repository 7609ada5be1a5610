import asyncio

import pytest
from fakes import Pauses
from google.protobuf.message import DecodeError

from noderuntime.core.errors import Unavailable
from noderuntime.core.retries import Retries


@pytest.fixture
async def pauses():
    return Pauses()


@pytest.fixture
async def retries(pauses):
    made = Retries(pauses.sleep, seconds=0.05)
    yield made
    await made.close()


class Failing:
    """A step that fails so many times."""

    def __init__(self, times, error=None):
        self.times, self.error = times, error or Unavailable("not yet")
        self.runs = 0
        self.done = asyncio.Event()

    async def __call__(self):
        self.runs += 1
        if self.runs <= self.times:
            raise self.error
        self.done.set()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_step_that_succeeds_is_taken_once(retries, pauses):
    step = Failing(0)
    assert await retries.attempt("x", step) is True
    assert (step.runs, len(retries), pauses.seconds) == (1, 0, [])


async def test_failed_step_is_repeated_with_growing_pauses(retries, pauses):
    step = Failing(9)
    assert await retries.attempt("x", step) is False
    assert len(retries) == 1
    for count in range(1, 10):
        await until(lambda count=count: len(pauses.seconds) == count)
        pauses.end()
    await step.done.wait()
    await until(lambda: not len(retries))
    assert pauses.seconds == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
    "error",
    [Unavailable("x"), KeyError("x"), ValueError("x"), OSError(5, "x"), DecodeError("x"), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
async def test_error_of_any_type_is_logged_and_repeated(retries, pauses, caplog, error):
    step = Failing(1, error)
    assert await retries.attempt("tear down a", step) is False
    assert [record.noderuntime_values["work"] for record in caplog.records] == ["tear down a"]
    await until(lambda: pauses.seconds)
    pauses.end()
    await step.done.wait()


async def test_attempt_that_hangs_is_cancelled_and_repeated(pauses, caplog):
    cancelled = asyncio.Event()

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    retries = Retries(pauses.sleep, seconds=0.01, longest=0.05)
    assert await retries.attempt("x", hang) is False
    await until(lambda: pauses.seconds == [1])
    assert cancelled.is_set()
    assert "work did not finish in time, to be retried" in caplog.text
    await retries.close()


async def test_slow_attempt_is_finished_not_repeated(retries, pauses, caplog):
    gate, runs = asyncio.Event(), []

    async def slow():
        runs.append("begun")
        await gate.wait()
        runs.append("ended")

    assert await retries.attempt("x", slow) is False
    assert (len(retries), "work is slow, to be continued" in caplog.text) == (1, True)
    gate.set()
    await until(lambda: not len(retries))
    assert (runs, pauses.seconds) == (["begun", "ended"], [])


async def test_slow_attempts_make_room_for_others(pauses):
    retries = Retries(pauses.sleep, seconds=0.05)
    gate = asyncio.Event()
    slow = [retries.attempt(str(number), gate.wait) for number in range(16)]
    other = Failing(0)
    async with asyncio.timeout(5):
        assert not any(await asyncio.gather(*slow))
        assert await retries.attempt("other", other) is True
    await retries.close()


async def test_cancelled_attempt_cancels_its_step():
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    attempt = asyncio.create_task(Retries().attempt("x", hang))
    await begun.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert cancelled.is_set()


async def test_attempts_run_a_few_at_a_time():
    retries = Retries()
    running, most, gate = 0, 0, asyncio.Event()

    async def step():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    attempts = [asyncio.create_task(retries.attempt(str(number), step)) for number in range(40)]
    await until(lambda: running == 16)
    gate.set()
    assert all(await asyncio.gather(*attempts))
    assert most == 16


async def test_close_ends_the_repetitions(retries, pauses):
    await retries.attempt("x", Failing(9))
    await until(lambda: pauses.seconds)
    await retries.close()
    assert len(retries) == 0
