import asyncio

import pytest

from noderuntime.core.errors import NotFound, Unavailable
from noderuntime.core.tasks import Joint, concurrently


class Work:
    """Counts how often it was started and how it ended."""

    def __init__(self):
        self.begun, self.cancelled = 0, 0
        self.gate = asyncio.Event()

    async def run(self):
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.begun


async def waiting(joint, work, count):
    tasks = [asyncio.create_task(joint.do("key", work.run)) for _ in range(count)]
    while not work.begun:
        await asyncio.sleep(0)
    return tasks


async def test_joint_callers_share_one_result():
    joint, work = Joint("work"), Work()
    tasks = await waiting(joint, work, 3)
    assert "key" in joint
    work.gate.set()
    assert await asyncio.gather(*tasks) == [1, 1, 1]
    assert "key" not in joint
    assert await joint.do("key", work.run) == 2


async def test_joint_work_is_cancelled_with_its_last_caller():
    joint, work = Joint("work"), Work()
    first, second = await waiting(joint, work, 2)
    first.cancel()
    await asyncio.wait([first])
    assert work.cancelled == 0
    second.cancel()
    await asyncio.wait([second])
    assert (work.cancelled, second.cancelled()) == (1, True)
    assert "key" not in joint


async def test_joint_work_that_has_ended_is_started_again():
    """Between its end and the loop's next iteration it must not count as running."""
    joint, ending = Joint("work"), asyncio.Event()

    async def fail():
        ending.set()
        raise NotFound("no")

    async def fine():
        return "fine"

    async def come_late():
        await ending.wait()
        return await joint.do("key", fine)

    late = asyncio.create_task(come_late())
    await asyncio.sleep(0)
    with pytest.raises(NotFound):
        await joint.do("key", fail)
    assert await late == "fine"


async def test_concurrently_cancels_the_others_after_a_failure():
    work = Work()

    async def fail():
        await asyncio.sleep(0)
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        await concurrently(work.run(), fail(), name="part")
    assert work.cancelled == 1


async def test_concurrently_returns_results_in_order():
    async def give(value):
        return value

    assert await concurrently(give(1), give(2), name="part") == [1, 2]
