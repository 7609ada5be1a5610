"""Probes of handlers: independent, with a deadline, renewed in the background."""

from __future__ import annotations

import asyncio

import pytest

from noderuntime.core.errors import DeadlineExceeded, Internal, NoderuntimeError, ToolError
from noderuntime.node.executor import probes as module
from noderuntime.node.executor.base import Features
from noderuntime.node.executor.probes import Probes


class FakeExecutor:
    """A handler whose binary returns the answer that a test sets, or hangs."""

    def __init__(self, name: str = "runc") -> None:
        self.name = name
        self.probes = 0
        self.answer: Features | Exception = _features("1")
        self.release = asyncio.Event()
        self.release.set()
        self.stubborn = False
        """Whether a cancelled probe does not end, as with a process in state D."""

    async def probe(self) -> Features:
        self.probes += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            if self.stubborn:
                await self.release.wait()
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def _features(version: str) -> Features:
    return Features(version, user_namespaces=True, recursive_read_only_mounts=True)


def _probes(*executors: FakeExecutor) -> Probes:
    return Probes({one.name: one for one in executors}, user_namespaces=True)  # type: ignore[misc]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.1)


async def _settled(executor: FakeExecutor, probes: int) -> None:
    """Wait until a background probe has ended."""
    async with asyncio.timeout(2):
        while executor.probes < probes:
            await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("stubborn", [False, True], ids=["killable", "in-state-D"])
async def test_hanging_handler_fails_alone_at_its_deadline(stubborn: bool) -> None:
    good, hanging = FakeExecutor("runc"), FakeExecutor("gvisor")
    hanging.release.clear()
    hanging.stubborn = stubborn
    async with asyncio.timeout(2):
        answers = await _probes(good, hanging).all()
    assert answers["runc"] == _features("1")
    assert isinstance(answers["gvisor"], DeadlineExceeded)
    assert str(answers["gvisor"]) == "handler gvisor did not answer within 0.1 s"
    hanging.release.set()


async def test_two_hanging_handlers_take_one_deadline() -> None:
    hanging = [FakeExecutor(name) for name in ("a", "b", "c", "d")]
    for executor in hanging:
        executor.release.clear()
    began = asyncio.get_running_loop().time()
    answers = await _probes(*hanging).all()
    assert asyncio.get_running_loop().time() - began < 0.3
    assert all(isinstance(answer, DeadlineExceeded) for answer in answers.values())


async def test_old_answer_is_served_while_it_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = FakeExecutor()
    probes = _probes(executor)
    assert (await probes.features("runc")).version == "1"
    monkeypatch.setattr(module, "_RENEW_SECONDS", 0.0)
    executor.answer = _features("2")
    executor.release.clear()
    assert [(await probes.features("runc")).version for _ in range(3)] == ["1", "1", "1"]
    executor.release.set()
    await _settled(executor, 2)
    monkeypatch.setattr(module, "_RENEW_SECONDS", 60.0)
    assert (await probes.features("runc")).version == "2"
    assert executor.probes == 2, "only one probe at a time"


async def test_handler_that_starts_to_hang_fails_after_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = FakeExecutor()
    probes = _probes(executor)
    await probes.features("runc")
    monkeypatch.setattr(module, "_RENEW_SECONDS", 0.0)
    executor.release.clear()
    executor.stubborn = True
    assert (await probes.features("runc")).version == "1"
    await asyncio.sleep(0.2)
    with pytest.raises(DeadlineExceeded, match="runc did not answer"):
        await probes.features("runc")
    assert executor.probes == 2, "a hanging probe is not started twice"
    executor.release.set()


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ToolError("runc", "features", 2, "bad"), ToolError),
        (AttributeError("'list' object has no attribute 'get'"), Internal),
    ],
)
async def test_failed_probe_is_retried_after_its_interval(
    raised: Exception, seen: type[NoderuntimeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = FakeExecutor()
    executor.answer = raised
    probes = _probes(executor)
    for _ in range(3):
        with pytest.raises(seen):
            await probes.features("runc")
    assert executor.probes == 1
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0)
    executor.answer = _features("1")
    with pytest.raises(seen):
        await probes.features("runc")
    await _settled(executor, 2)
    assert (await probes.features("runc")).version == "1"
    assert executor.probes == 2, "a working handler is not probed again within the interval"
