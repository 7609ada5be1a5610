import asyncio
import gc

import pytest

from noderuntime.core import tasks
from noderuntime.core.errors import ResourceExhausted, Unavailable
from noderuntime.core.tasks import Scope, Work, background, finish, settle, start, together


class Verb:
    """Work that ends when the test releases it."""

    def __init__(self, result="id", error=None):
        self.result, self.error = result, error
        self.runs = 0
        self.gate = asyncio.Event()

    async def __call__(self):
        self.runs += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.result


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def logged(caplog):
    """Return the log records with their values."""
    return lambda: "\n".join(str(record.noderuntime_values) for record in caplog.records)


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_started_task_has_a_name_and_survives_collection():
    verb = Verb()
    start(verb(), name="a verb")
    await turns()
    gc.collect()
    assert "a verb" in [task.get_name() for task in tasks.running()]
    verb.gate.set()
    await turns()
    assert "a verb" not in [task.get_name() for task in tasks.running()]


async def test_background_failure_is_logged(logged):
    verb = Verb(error=KeyError("lost"))
    background(verb(), name="record an exit")
    verb.gate.set()
    await turns()
    line = logged()
    assert "record an exit" in line
    assert "KeyError" in line


async def test_failure_is_logged_when_the_caller_was_cancelled(logged):
    verb = Verb(error=Unavailable("the plugin is away"))
    caller = start(finish(verb(), name="StopPodSandbox x"), name="caller")
    await turns()
    await cancelled(caller)
    verb.gate.set()
    await turns()
    line = logged()
    assert "'work': 'StopPodSandbox x'" in line
    assert "the plugin is away" in line


async def test_failure_that_reaches_the_caller_is_not_logged(logged):
    verb = Verb(error=Unavailable("the plugin is away"))
    verb.gate.set()
    with pytest.raises(Unavailable):
        await finish(verb(), name="StopPodSandbox x")
    await turns()
    assert logged() == ""


async def test_failure_in_the_turn_of_the_cancel_is_logged(logged):
    verb = Verb(error=Unavailable("the plugin is away"))
    caller = start(finish(verb(), name="StopPodSandbox x"), name="caller")
    await turns()
    verb.gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cancelled(caller)
    await turns()
    assert "the plugin is away" in logged()


async def test_settle_raises_the_cancel_after_the_end():
    verb = Verb()
    work = start(verb(), name="work")
    waiter = start(settle(work), name="waiter")
    await turns()
    waiter.cancel()
    await turns()
    assert not waiter.done()
    verb.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert work.result() == "id"


async def test_scope_cancels_and_awaits_running_tasks():
    ended = []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def block():
        async with Scope() as scope:
            scope.start(work(), name="one")
            scope.start(work(), name="two")
            await turns()
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        await block()
    assert ended == [True, True]


async def test_scope_logs_a_failure_of_what_it_cancels(logged):
    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            raise Unavailable("the plugin is away")

    async with Scope() as scope:
        scope.start(work(), name="relay output")
        await turns()
    assert "'work': 'relay output'" in logged()
    assert "the plugin is away" in logged()


async def test_scope_leaves_earlier_outcomes_to_its_block(logged):
    verb = Verb(error=Unavailable("the plugin is away"))
    verb.gate.set()
    async with Scope() as scope:
        scope.start(verb(), name="relay output")
        await turns()
    assert logged() == ""


async def test_together_logs_the_errors_that_it_does_not_raise(logged):
    verbs = [Verb(error=Unavailable(name)) for name in ("first", "second", "third")]
    for verb in verbs:
        verb.gate.set()
    with pytest.raises(Unavailable, match="first"):
        await together(*(verb() for verb in verbs), name="stop a container")
    assert "first" not in logged()
    assert all(f"{name}" in logged() for name in ("second", "third"))
    assert len(logged().splitlines()) == 2


async def test_together_completes_all_and_raises_the_first_error():
    done = []

    async def step(name, error=None):
        await asyncio.sleep(0)
        done.append(name)
        if error is not None:
            raise error

    with pytest.raises(Unavailable, match="first"):
        await together(step("a", Unavailable("first")), step("b", KeyError("second")), step("c"), name="step")
    assert sorted(done) == ["a", "b", "c"]


async def test_once_joins_work_of_an_equal_request():
    work, verb = Work(), Verb()
    calls = [start(work.once("pod", b"spec", verb, name="run"), name="call") for _ in range(3)]
    await turns()
    verb.gate.set()
    assert await asyncio.gather(*calls) == ["id"] * 3
    assert verb.runs == 1


async def test_once_keeps_the_result_for_the_retry():
    work, verb = Work(), Verb()
    call = start(work.once("pod", b"spec", verb, name="run"), name="call")
    await turns()
    await cancelled(call)
    verb.gate.set()
    await turns()
    assert await work.once("pod", b"spec", Verb("another"), name="run") == "id"
    again = Verb("another")
    again.gate.set()
    assert await work.once("pod", b"spec", again, name="run") == "another"


@pytest.mark.parametrize("turns_before", range(6))
async def test_once_keeps_a_result_that_coincides_with_a_cancel(turns_before):
    work, verb = Work(), Verb()
    call = start(work.once("pod", b"spec", verb, name="run"), name="call")
    await turns()
    verb.gate.set()
    await turns(turns_before)
    call.cancel()
    try:
        assert await call == "id"
    except asyncio.CancelledError:
        await turns()
        again = Verb("another")
        again.gate.set()
        assert await work.once("pod", b"spec", again, name="run") == "id"
        assert again.runs == 0


async def test_once_drops_a_kept_result_after_its_time(monkeypatch):
    monkeypatch.setattr(tasks, "KEEP_SECONDS", 0.01)
    work, verb = Work(), Verb()
    call = start(work.once("pod", b"spec", verb, name="run"), name="call")
    await turns()
    await cancelled(call)
    verb.gate.set()
    while work.kept():
        await asyncio.sleep(0.001)
    again = Verb("another")
    again.gate.set()
    assert await work.once("pod", b"spec", again, name="run") == "another"


async def test_once_keeps_no_failure():
    work, verb = Work(), Verb(error=Unavailable("away"))
    call = start(work.once("pod", b"spec", verb, name="run"), name="call")
    await turns()
    await cancelled(call)
    verb.gate.set()
    await turns()
    assert work.kept() == 0


async def test_once_does_its_own_work_for_another_request():
    work, verb, other = Work(), Verb("first"), Verb("second")
    first = start(work.once("pod", b"spec", verb, name="run"), name="call")
    second = start(work.once("pod", b"other spec", other, name="run"), name="call")
    await turns()
    assert other.runs == 0
    verb.gate.set()
    other.gate.set()
    assert await asyncio.gather(first, second) == ["first", "second"]


async def test_lock_names_its_holder():
    work = Work()
    gate = asyncio.Event()

    async def hold():
        async with work.lock("pod"):
            await gate.wait()

    task = start(hold(), name="StopPodSandbox pod")
    await turns()
    assert tasks.held_locks() == {"pod": "StopPodSandbox pod"}
    gate.set()
    await task
    assert tasks.held_locks() == {}


async def test_lock_limits_the_tasks_that_wait():
    work, gate = Work(), asyncio.Event()

    async def hold():
        async with work.lock("ab12"):
            await gate.wait()

    waiting = [start(hold(), name=f"StopPodSandbox {number}") for number in range(1 + tasks.MOST_WAITING)]
    await turns()
    with pytest.raises(
        ResourceExhausted, match="32 calls wait for ab12, whose lock is held by: StopPodSandbox 0"
    ):
        await work.lock("ab12").acquire()
    assert await asyncio.wait_for(work.lock("cd34").acquire(), 1)
    gate.set()
    await asyncio.gather(*waiting)


async def test_drain_waits_for_work_of_cancelled_callers():
    work, verb = Work(), Verb()
    call = start(work.finish(verb(), name="verb"), name="call")
    await turns()
    await cancelled(call)
    asyncio.get_running_loop().call_soon(verb.gate.set)
    await work.drain(5)
    assert not [task for task in tasks.running() if task.get_name() == "verb"]
