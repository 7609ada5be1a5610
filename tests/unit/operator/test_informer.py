"""The informer against an API server that lists, watches and forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from fakeapi import FakeApi

from noderuntime_operator.informer import Informer
from noderuntime_operator.kube import PAGE, Kube
from noderuntime_operator.metrics import Metrics

NODES = "/api/v1/nodes"


@dataclass(frozen=True)
class View:
    """A view whose equality ignores the heartbeat, like that of an instance."""

    name: str
    color: str
    heartbeat: int = field(default=0, compare=False)
    resource_version: str = field(default="", compare=False)


def view(body: Any) -> View | None:
    if body.get("hidden"):
        return None
    return View(
        body["metadata"]["name"], body["color"], body.get("heartbeat", 0), body["metadata"]["resourceVersion"]
    )


class Watched:
    """An informer that runs, with the changes that it delivered."""

    def __init__(self, kube: Kube) -> None:
        self.informer: Informer[View] = Informer(kube, "Node", view, Metrics(), backoff_seconds=(0.01, 0.1))
        self.changes: asyncio.Queue[tuple[str, str | None, str | None]] = asyncio.Queue()
        self.informer.changed = lambda name, old, new: self.changes.put_nowait(
            (name, old and old.color, new and new.color)
        )

    @property
    def colors(self) -> dict[str, str]:
        return {name: found.color for name, found in self.informer.views.items()}

    async def change(self) -> tuple[str, str | None, str | None]:
        return await asyncio.wait_for(self.changes.get(), 5)


@asynccontextmanager
async def watching(kube: Kube) -> AsyncIterator[Watched]:
    found = Watched(kube)
    task = asyncio.create_task(found.informer.run())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def api() -> FakeApi:
    api = FakeApi()
    api.put(NODES, "a", color="red")
    api.put(NODES, "b", color="blue")
    return api


async def test_informer_lists_in_pages_then_watches(api: FakeApi) -> None:
    for number in range(PAGE * 2):
        api.put(NODES, f"n{number}", color="grey")
    async with api.serving() as kube, watching(kube) as watched:
        await watched.informer.synced.wait()
        assert watched.colors == {name: o["color"] for name, o in api.objects[NODES].items()}
        assert api.count("GET", "continue=") == 2
        await api.until_watched(NODES)
        while not watched.changes.empty():
            watched.changes.get_nowait()
        api.put(NODES, "a", color="green")
        assert await watched.change() == ("a", "red", "green")
        api.remove(NODES, "b")
        assert await watched.change() == ("b", "blue", None)
        assert "b" not in watched.colors


async def test_heartbeat_is_cached_and_wakes_nothing(api: FakeApi) -> None:
    async with api.serving() as kube, watching(kube) as watched:
        await api.until_watched(NODES)
        for _ in range(2):
            await watched.change()
        api.put(NODES, "a", color="red", heartbeat=7)
        api.put(NODES, "b", color="black")
        assert await watched.change() == ("b", "blue", "black")
        assert watched.informer.views["a"].heartbeat == 7


async def test_watch_resumes_from_the_last_bookmark(api: FakeApi) -> None:
    async with api.serving() as kube, watching(kube) as watched:
        await api.until_watched(NODES)
        api.bookmark(NODES)
        api.put(NODES, "a", color="green")
        for _ in range(3):
            await watched.change()
        api.bookmark(NODES)
        # All events before the bookmark are forgotten; a watch from the bookmark needs none of them.
        api.oldest = api.version
        api.cut()
        await api.until_watched(NODES)
        assert api.requests[-1][1].count(f"resourceVersion={api.version}&") == 1
        assert api.count("GET", "limit=") == 1


async def test_watch_without_a_line_is_opened_again(api: FakeApi) -> None:
    async with api.serving() as kube:
        kube.idle_seconds = 0.2
        async with watching(kube) as watched:
            while api.count("GET", "watch=1") < 2:
                await asyncio.sleep(0.01)
            assert watched.informer.synced.is_set()
            assert api.count("GET", "limit=") == 1


@pytest.mark.parametrize(("shortest", "noted"), [(0.0, True), (60.0, False)], ids=["long", "short"])
async def test_end_of_a_long_outage_is_noted(api: FakeApi, shortest: float, noted: bool) -> None:
    async with api.serving() as kube, watching(kube) as watched:
        await api.until_watched(NODES)
        watched.informer.outage_seconds = shortest
        before = asyncio.get_running_loop().time()
        api.refusals["GET", NODES] = [503]
        api.cut()
        await api.until_watched(NODES)
        await api.settled()
        began, ended = watched.informer.outage or (before, before)
        assert (before < began < ended) is noted


@pytest.mark.parametrize(("status", "lives"), [(503, True), (429, True), (401, False), (404, False)])
async def test_watch_that_is_refused_for_long_lives(api: FakeApi, status: int, lives: bool) -> None:
    async with api.serving() as kube, watching(kube) as watched:
        await api.until_watched(NODES)
        api.refusals["GET", NODES] = [status] * 1000

        async def refused(times: int) -> float:
            goal = len(api.requests) + times
            while len(api.requests) < goal:
                await asyncio.sleep(0.01)
            return watched.informer.alive_at

        api.cut()
        earlier = await refused(2)
        assert (await refused(3) > earlier) is lives


async def test_relist_after_410_forgets_deleted_objects(api: FakeApi) -> None:
    async with api.serving() as kube, watching(kube) as watched:
        await api.until_watched(NODES)
        for _ in range(2):
            await watched.change()
        api.cut()
        del api.objects[NODES]["b"]
        api.put(NODES, "c", color="white")
        api.oldest = api.version
        assert {await watched.change(), await watched.change()} == {
            ("c", None, "white"),
            ("b", "blue", None),
        }
        assert watched.colors == {"a": "red", "c": "white"}


async def test_cache_is_incomplete_while_a_kind_is_not_served(api: FakeApi) -> None:
    async with api.serving() as kube, watching(kube) as watched:
        await api.until_watched(NODES)
        api.refusals["GET", NODES] = refusals = [404] * 1000
        api.cut()
        while api.count("GET", "limit=") < 3:
            await asyncio.sleep(0.01)
        assert not watched.informer.synced.is_set()
        # An empty or failing read is no evidence: what was known is still known.
        assert watched.colors == {"a": "red", "b": "blue"}
        refusals.clear()
        await asyncio.wait_for(watched.informer.synced.wait(), 10)


async def test_known_resource_version_is_not_parsed_again(api: FakeApi) -> None:
    async with api.serving() as kube, watching(kube) as watched:
        await api.until_watched(NODES)
        known = watched.informer.views["a"]
        api.cut()  # so that the list has the change, and not the watch
        api.put(NODES, "b", color="black")
        api.oldest = api.version
        while watched.colors["b"] != "black":
            await asyncio.sleep(0.01)
        assert watched.informer.views["a"] is known


async def test_object_of_unknown_form_keeps_its_view(api: FakeApi) -> None:
    async with api.serving() as kube, watching(kube) as watched:
        await api.until_watched(NODES)
        api.put(NODES, "a", shape="round")
        api.put(NODES, "b", color="black")
        while watched.colors["b"] != "black":
            await watched.change()
        assert watched.colors == {"a": "red", "b": "black"}
