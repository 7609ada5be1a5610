"""One reconciliation against an API server that refuses some requests."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any
from unittest.mock import AsyncMock

import kopf
import pytest
from builders import instance, node, runtime, spec
from fakeapi import FakeApi

from noderuntime_operator.__main__ import listen_address
from noderuntime_operator.api.names import FINALIZER
from noderuntime_operator.cluster_state import PodView
from noderuntime_operator.handlers import HUNG_SECONDS, alive, runtime_changed, stop
from noderuntime_operator.kube import Kube, NotLeader
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.observe import Caches
from noderuntime_operator.pods import Pods
from noderuntime_operator.reconcile import DISTANCE, Reconciler
from noderuntime_operator.settings import AgentSettings

GROUP = "/apis/noderuntime.dev/v1alpha1"
AGENT = AgentSettings(namespace="ns", image="image:1")


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    meta = {"generation": 1, "finalizers": [FINALIZER]}
    api.put(f"{GROUP}/noderuntimes", "rt", metadata=meta, spec=spec(limit=10).dump())
    api.objects["/apis/apps/v1/namespaces/ns/controllerrevisions"] = {}
    api.objects["/apis/apps/v1/daemonsets"] = {}
    return api


@pytest.fixture
async def caches(kube: Kube) -> Caches:
    """Three nodes with instances that are not claimed yet."""
    found = Caches.over(kube, {"rt": [runtime()]}, Metrics())
    for name in ("n1", "n2", "n3"):
        found.nodes.views[name] = node(name, claimed=None)
        found.instances.views[name] = instance(name)
    return found


def reconciler(kube: Kube, caches: Caches, may_act: Callable[[], bool] = lambda: True) -> Reconciler:
    return Reconciler(kube, caches, AGENT, may_act, Metrics())


def patched(api: FakeApi) -> list[str]:
    return [path.partition("?")[0] for method, path in api.requests if method == "PATCH"]


async def test_refused_node_is_reported_and_holds_up_no_other(
    api: FakeApi, kube: Kube, caches: Caches
) -> None:
    api.refusals["PATCH", "/api/v1/nodes/n2"] = [403]
    pause = await reconciler(kube, caches).reconcile("rt")
    assert {path for path in patched(api) if "nodes" in path} == {f"/api/v1/nodes/n{i}" for i in (1, 2, 3)}
    status: dict[str, Any] = api.objects[f"{GROUP}/noderuntimes/rt"]["status"]["status"]
    (degraded,) = [c for c in status["conditions"] if c["type"] == "Degraded"]
    assert degraded["reason"] == "Refused"
    assert "labels of Node n2: refused with 403" in degraded["message"]
    assert pause <= 2, "the refused write is not tried again soon"


async def test_status_patch_removes_what_is_no_longer_true(api: FakeApi, kube: Kube, caches: Caches) -> None:
    wave = {"phase": "Soaking", "nodes": 3, "updated": 1, "ready": 1, "failed": 0, "outside": 0}
    old = {
        "failedRevision": {"revision": "rt-old", "message": "n1: Failed"},
        "wave": {**wave, "waitingFor": "", "soakingSince": "2026-01-01T00:00:00Z"},
    }
    meta = {"generation": 1, "finalizers": [FINALIZER]}
    api.put(f"{GROUP}/noderuntimes", "rt", metadata=meta, spec=spec(limit=10).dump(), status=old)
    await reconciler(kube, caches).reconcile("rt")
    patch: dict[str, Any] = api.objects[f"{GROUP}/noderuntimes/rt"]["status"]["status"]
    assert patch["failedRevision"] is None
    assert patch["wave"]["soakingSince"] is None


async def test_answered_writes_are_signs_of_life(api: FakeApi, kube: Kube, caches: Caches) -> None:
    leader = reconciler(kube, caches)
    seen: dict[str, float] = {}
    api.on_request = lambda: seen.setdefault(f"{api.requests[-1][0]} {api.requests[-1][1]}", leader.alive_at)
    began = leader.alive_at
    await leader.reconcile("rt")
    alive_at = {path.partition("?")[0]: moment for path, moment in seen.items()}
    first, last = alive_at["PATCH /api/v1/nodes/n1"], alive_at[f"PATCH {GROUP}/noderuntimes/rt/status"]
    assert began < first < last


class HangingPods(Pods):
    """A search for pods that never ends."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()

    async def on(self, nodes: Collection[str]) -> list[PodView]:
        self.entered.set()
        await asyncio.Event().wait()
        return []


async def test_reconciliation_that_hangs_shows_no_sign_of_life(kube: Kube, caches: Caches) -> None:
    pods = HangingPods()
    leader = reconciler(kube, dataclasses.replace(caches, pods=pods))
    leader.wake("rt", 0)
    task = asyncio.create_task(leader.run())
    await pods.entered.wait()
    before = leader.alive_at
    for name in ("rt", "other"):
        leader.wake(name, 0)
        await asyncio.sleep(0.01)
    assert leader.alive_at == before
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("status", [404, 409])
async def test_finalizer_of_a_changed_noderuntime_waits(api: FakeApi, kube: Kube, status: int) -> None:
    path = f"{GROUP}/noderuntimes"
    meta = {"generation": 1, "finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    api.put(path, "rt", metadata=meta, spec=spec().dump())
    api.objects["/api/v1/nodes"] = {}
    api.refusals["PATCH", f"{path}/rt"] = [status]
    leader = reconciler(kube, Caches.over(kube, {"rt": [runtime()]}, Metrics()))
    assert await leader.reconcile("rt") == DISTANCE
    assert f"{path}/rt" in patched(api)


async def test_lost_leadership_ends_a_reconciliation_without_a_write(
    api: FakeApi, kube: Kube, caches: Caches
) -> None:
    kube.seconds_to_write = lambda: 0.0
    with pytest.raises(NotLeader):
        await reconciler(kube, caches).reconcile("rt")
    assert {method for method, _ in api.requests} == {"GET"}


async def test_standby_reads_and_writes_nothing(api: FakeApi, kube: Kube, caches: Caches) -> None:
    leads = False
    standby = reconciler(kube, caches, lambda: leads)
    standby.wake("rt", 0)
    task = asyncio.create_task(standby.run())
    began = standby.alive_at
    while standby.alive_at == began:
        await asyncio.sleep(0.05)
    assert api.requests == []
    leads = True
    while not patched(api):
        await asyncio.sleep(0.05)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_leadership_lost_for_a_moment_is_followed_by_a_retry(
    api: FakeApi, kube: Kube, caches: Caches
) -> None:
    allowed = iter([0.0])
    kube.seconds_to_write = lambda: next(allowed, 30.0)
    leader = reconciler(kube, caches)
    leader.wake("rt", 0)
    task = asyncio.create_task(leader.run())
    while not patched(api):
        await asyncio.sleep(0.05)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class WatchedReconciler(Reconciler):
    """A reconciler that notes what was woken."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.woken: set[str] = set()

    def wake(self, name: str, delay: float = DISTANCE) -> None:
        self.woken.add(name)


class Part:
    """A part of the operator that last ran some seconds ago."""

    def __init__(self, age: float) -> None:
        self.alive_at = asyncio.get_running_loop().time() - age


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "hangs"])
async def test_liveness_names_the_part_that_does_not_run(ended: bool) -> None:
    never = asyncio.get_running_loop().create_future()
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    parts = {"reconcile loop": Part(1), "watch of Node": Part(1 if ended else HUNG_SECONDS + 1)}
    memo = kopf.Memo(parts=parts, tasks=[never, done if ended else never])
    with pytest.raises(RuntimeError, match="the watch of Node has shown no sign of life"):
        await alive(memo=memo)
    assert await alive(memo=kopf.Memo(parts={"reconcile loop": Part(1)}, tasks=[never])) == "ok"


@pytest.mark.parametrize(("kind", "woken"), [("DELETED", ["old", "rt"]), ("MODIFIED", ["old"])])
async def test_deleted_noderuntime_wakes_the_others(kube: Kube, kind: str, woken: list[str]) -> None:
    runtimes = {name: [runtime(name=name)] for name in ("old", "rt")}
    waiting = WatchedReconciler(kube, Caches.over(kube, runtimes, Metrics()), AGENT, lambda: True, Metrics())
    await runtime_changed(name="old", event={"type": kind, "object": {}}, memo=kopf.Memo(reconciler=waiting))
    assert sorted(waiting.woken) == woken


async def test_lease_is_released_although_a_part_failed() -> None:
    failed = asyncio.get_running_loop().create_future()
    failed.set_exception(ValueError("a bug"))
    memo = kopf.Memo(tasks=[failed], pods=AsyncMock(), election=AsyncMock(), kube=AsyncMock())
    memo.exposition = AsyncMock()
    await stop(memo=memo)
    memo.election.release.assert_awaited_once()


@pytest.mark.parametrize(("pod", "address"), [("10.0.0.7", "0.0.0.0"), ("fd00::7", "[::]"), ("", "0.0.0.0")])
def test_probes_are_served_in_the_pods_address_family(pod: str, address: str) -> None:
    assert listen_address(pod) == address


@pytest.mark.parametrize("ticks", range(6))
async def test_loop_ends_when_stopped_while_it_is_woken(kube: Kube, ticks: int) -> None:
    waiting = reconciler(kube, Caches.over(kube, {}, Metrics()))
    task = asyncio.create_task(waiting.run())
    await asyncio.sleep(0.01)
    waiting.wake("other", 60)
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=2)
    assert done, "the loop does not end"
