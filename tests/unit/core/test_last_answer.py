import asyncio

import pytest

from noderuntime.core.errors import DeadlineExceeded, Internal, Unavailable
from noderuntime.core.last_answer import LastAnswer

PATIENT = {"seconds": 60.0, "renew": 60.0, "retry": 60.0}


class Asked:
    """A probe that returns or raises what the test sets, when the test releases it."""

    def __init__(self):
        self.asked = 0
        self.answer = "first"
        self.free = asyncio.Event()
        self.free.set()
        self.last = LastAnswer("plugin p", self._ask)

    async def _ask(self):
        self.asked += 1
        await self.free.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def new(self, answer):
        """Wait until this is the last result."""
        async with asyncio.timeout(5):
            while str(await self.last.get(**PATIENT)) != answer:
                await asyncio.sleep(0)


async def test_get_serves_an_old_result_while_renewing():
    asked = Asked()
    assert await asked.last.get(**PATIENT) == "first"
    asked.free.clear()
    asked.answer = "second"
    assert [await asked.last.get(**PATIENT | {"renew": 0.0}) for _ in range(3)] == ["first"] * 3
    asked.free.set()
    await asked.new("second")
    assert asked.asked == 2


async def test_get_keeps_an_error_until_the_retry():
    asked = Asked()
    asked.answer = Unavailable("agent is away")
    assert str(await asked.last.get(**PATIENT)) == "agent is away"
    asked.answer = "well"
    assert str(await asked.last.get(**PATIENT | {"renew": 0.0})) == "agent is away"
    await asked.last.get(**PATIENT | {"retry": 0.0})
    await asked.new("well")


async def test_get_returns_an_unexpected_failure_as_internal():
    asked = Asked()
    asked.answer = KeyError("ips")
    error = await asked.last.get(**PATIENT)
    assert isinstance(error, Internal)
    assert str(error) == "plugin p failed: KeyError: 'ips'"


@pytest.mark.parametrize("known", [False, True], ids=["at first", "later"])
async def test_a_hung_probe_fails_at_its_deadline_and_runs_once(known):
    asked = Asked()
    if known:
        await asked.last.get(**PATIENT)
    asked.free.clear()
    hasty = {"seconds": 0.05, "renew": 0.0, "retry": 0.0}
    if known:
        assert await asked.last.get(**hasty) == "first"
        await asyncio.sleep(0.06)
    for _ in range(2):
        error = await asked.last.get(**hasty)
        assert isinstance(error, DeadlineExceeded)
        assert str(error) == "plugin p did not answer within 0.05 s"
    assert asked.asked == 1 + known
