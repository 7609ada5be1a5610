"""The agent's loop against a fake API server over real HTTP."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakeinstances import FakeApi, serve

from noderuntime.agent.instance import Instance
from noderuntime.agent.kube_client import InstanceApi
from noderuntime.agent.loop import BACKOFF_SECONDS, Loop, pause_after
from noderuntime.agent.report import NodeState
from noderuntime.core.backoff import Backoff
from noderuntime.core.errors import PermissionDenied


class FakeNode:
    """A node whose reconciliation returns a fixed state."""

    def __init__(self) -> None:
        self.state = NodeState(1, "Ready", "Proven")
        self.reconciled: asyncio.Queue[Instance] = asyncio.Queue()
        self.released = asyncio.Event()

    async def reconcile(self, instance: Instance, report: Any) -> NodeState:
        self.reconciled.put_nowait(instance)
        return self.state

    def release(self) -> None:
        self.released.set()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[FakeApi, InstanceApi]]:
    async with serve(tmp_path) as found:
        yield found


@asynccontextmanager
async def running(loop: Loop) -> AsyncIterator[None]:
    """Run the loop during the block, which may take ten seconds."""
    task = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(10):
            yield
    finally:
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done, "the loop does not end"
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_loop_reconciles_new_specs_and_reports_transitions_once(
    served: tuple[FakeApi, InstanceApi],
) -> None:
    fake, api = served
    node = FakeNode()
    async with running(Loop(api, node)):  # type: ignore[arg-type]
        assert (await node.reconciled.get()).generation == 1
        await fake.patched.wait()
        changed = {**fake.body, "metadata": {**fake.body["metadata"], "generation": 2}}
        fake.events.put_nowait({"type": "MODIFIED", "object": changed})
        assert (await node.reconciled.get()).generation == 2
        # A status that the agent patched itself does not cause a reconciliation.
        fake.events.put_nowait({"type": "MODIFIED", "object": {**changed, "status": {"phase": "Ready"}}})
        await asyncio.sleep(0.05)
    assert node.reconciled.empty()
    assert len(fake.patches) == 1
    assert fake.patches[0]["phase"] == "Ready"


@pytest.mark.parametrize("image", ["image:1", None])
async def test_instance_that_is_not_supported_is_reconciled_with_its_problem(
    served: tuple[FakeApi, InstanceApi], image: str | None
) -> None:
    fake, api = served
    assert fake.body is not None
    fake.body["spec"] = {"image": image, "handlers": [{"name": "kata", "type": "Kata"}]}
    fake.body["status"] = {"handlers": [{"name": "runc", "state": "Ready"}]}
    node = FakeNode()
    async with running(Loop(api, node)):  # type: ignore[arg-type]
        found = await node.reconciled.get()
    assert (found.generation, found.spec.image, found.handlers) == (1, image, ("runc",))
    assert "spec.handlers.0.type" in found.problem


async def test_loop_without_an_instance_releases_the_node(served: tuple[FakeApi, InstanceApi]) -> None:
    fake, api = served
    fake.body = None
    node = FakeNode()
    async with running(Loop(api, node)):  # type: ignore[arg-type]
        await node.released.wait()
    assert fake.patches == []


@pytest.mark.parametrize("phase", ["Degraded", "Failed"])
def test_healed_failure_is_reported_within_twelve_seconds(phase: str) -> None:
    longest_jitter = 1.15
    assert pause_after(phase) * longest_jitter < 12
    assert pause_after("Ready") == 60


async def test_deleted_instance_releases_the_node_at_once(served: tuple[FakeApi, InstanceApi]) -> None:
    fake, api = served
    node = FakeNode()
    async with running(Loop(api, node)):  # type: ignore[arg-type]
        await node.reconciled.get()
        fake.events.put_nowait({"type": "DELETED", "object": fake.body})
        await node.released.wait()


async def test_recreated_instance_is_reconciled_at_once(served: tuple[FakeApi, InstanceApi]) -> None:
    fake, api = served
    node = FakeNode()
    async with running(Loop(api, node)):  # type: ignore[arg-type]
        await node.reconciled.get()
        fake.events.put_nowait({"type": "DELETED", "object": fake.body})
        fake.events.put_nowait({"type": "ADDED", "object": fake.body})
        assert (await node.reconciled.get()).generation == 1


async def test_lost_watch_begins_again_and_finds_the_new_spec(served: tuple[FakeApi, InstanceApi]) -> None:
    fake, api = served
    node = FakeNode()
    async with running(Loop(api, node, Backoff(0.01, 0.02))):  # type: ignore[arg-type]
        await node.reconciled.get()
        assert fake.body is not None
        fake.body["metadata"]["generation"] = 2
        fake.events.put_nowait({})
        assert (await node.reconciled.get()).generation == 2


async def test_refused_token_ends_the_loop_after_a_while(served: tuple[FakeApi, InstanceApi]) -> None:
    fake, api = served
    fake.refuse = 401
    loop = Loop(api, FakeNode(), Backoff(0.01, 0.02), refused_seconds=0.1)  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        with pytest.raises(PermissionDenied, match=r"refused the agent's token .*delete this pod.*401"):
            await loop.run()
    assert len(fake.tokens) > 2


async def test_outage_between_two_refusals_is_no_refusal(served: tuple[FakeApi, InstanceApi]) -> None:
    fake, api = served
    fake.refusals = [401, 503, 401, 503]
    node = FakeNode()
    async with running(Loop(api, node, Backoff(0.01, 0.02), refused_seconds=0)):  # type: ignore[arg-type]
        await node.reconciled.get()
    assert fake.refusals == []


async def test_token_accepted_again_keeps_the_loop(served: tuple[FakeApi, InstanceApi]) -> None:
    fake, api = served
    fake.refuse = 401
    node = FakeNode()
    async with running(Loop(api, node, Backoff(0.01, 0.02))):  # type: ignore[arg-type]
        while len(fake.tokens) < 3:
            await asyncio.sleep(0.01)
        fake.refuse = 0
        assert (await node.reconciled.get()).generation == 1


def test_pauses_are_random_and_grow_to_a_minute() -> None:
    crowd = [Backoff(*BACKOFF_SECONDS) for _ in range(1000)]
    rounds = [[backoff.next() for backoff in crowd] for _ in range(4)]
    assert [round(max(pauses) / 30) for pauses in rounds] == [1, 2, 2, 2]
    for pauses, limit in zip(rounds, (30, 60, 60, 60), strict=True):
        # Full jitter: a tenth of the agents in each tenth of the range.
        assert min(pauses) < 0.1 * limit
        assert statistics.mean(pauses) == pytest.approx(limit / 2, rel=0.15)


def test_pauses_after_a_success_begin_again() -> None:
    backoff = Backoff(*BACKOFF_SECONDS)
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 30


class SlowApi:
    """An API whose instance changes when the test says so."""

    def __init__(self) -> None:
        self.change = asyncio.Event()

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        yield {"metadata": {"generation": 1}, "spec": {}}
        await self.change.wait()
        yield {"metadata": {"generation": 2}, "spec": {}}
        await asyncio.Event().wait()

    async def patch_status(self, status: dict[str, Any]) -> dict[str, Any]:
        return {"status": status}


@pytest.mark.parametrize("ticks", range(8))
async def test_loop_ends_when_stopped_while_the_spec_changes(ticks: int) -> None:
    api, node = SlowApi(), FakeNode()
    async with running(Loop(api, node)):  # type: ignore[arg-type]
        await node.reconciled.get()
        await asyncio.sleep(0.01)
        api.change.set()
        for _ in range(ticks):
            await asyncio.sleep(0)
