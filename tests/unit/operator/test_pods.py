"""Finding pods: node by node for a few nodes, by one list and a watch for many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakeapi import FakeApi

from noderuntime_operator.kube import KubeError
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.pods import NODE_BY_NODE, Pods

PODS = "/api/v1/pods"
MANY = [f"n{number}" for number in range(NODE_BY_NODE + 1)]


def put(api: FakeApi, name: str, node: str, runtime_class: str = "gvisor") -> None:
    spec = {"nodeName": node, "runtimeClassName": runtime_class}
    api.put(PODS, name, metadata={"namespace": "shop"}, spec=spec)


def selects(query: str, body: dict[str, Any]) -> bool:
    return "spec.nodeName=" not in query or f"spec.nodeName={body['spec']['nodeName']}," in query


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    api.selects = selects
    put(api, "a", "n1")
    put(api, "b", "n2")
    put(api, "ordinary", "n1", runtime_class="")
    return api


@pytest.fixture
async def pods(api: FakeApi) -> AsyncIterator[Pods]:
    async with api.serving() as kube:
        pods = Pods(kube, Metrics())
        yield pods
        await pods.close()


async def test_few_nodes_are_listed_one_by_one(api: FakeApi, pods: Pods) -> None:
    assert [str(pod) for pod in await pods.on(["n1"])] == ["shop/a"]
    assert {str(pod) for pod in await pods.on(["n1", "n2", "n3"])} == {"shop/a", "shop/b"}
    assert api.count("GET", "fieldSelector=spec.nodeName") == 4
    assert api.count("GET", "watch") == 0


async def test_no_node_needs_no_request(api: FakeApi, pods: Pods) -> None:
    assert await pods.on([]) == []
    assert api.requests == []


async def test_many_nodes_are_listed_once_and_watched(api: FakeApi, pods: Pods) -> None:
    put(api, "elsewhere", "x")
    assert {str(pod) for pod in await pods.on(MANY)} == {"shop/a", "shop/b"}
    await api.until_watched(PODS)
    api.remove(PODS, "a")
    put(api, "c", "n3")
    while {str(pod) for pod in await pods.on(MANY)} != {"shop/b", "shop/c"}:
        await api.settled()
    assert api.count("GET", "limit=") == 1


async def test_list_that_takes_longer_than_the_watch_may_be_idle(api: FakeApi) -> None:
    async with api.serving() as kube:
        pods = Pods(kube, Metrics())
        pods.idle_seconds = 0.05
        async with kube.one_page:
            slow = asyncio.create_task(pods.on(MANY))
            await asyncio.sleep(0.2)
        assert len(await asyncio.wait_for(slow, 5)) == 2
        await asyncio.sleep(0.2)
        assert len(await asyncio.wait_for(pods.on(MANY), 5)) == 2, "no new list after an idle time"
        await pods.close()


async def test_refused_list_is_an_error_and_no_empty_answer(api: FakeApi, pods: Pods) -> None:
    api.refusals["GET", PODS] = [403]
    with pytest.raises(KubeError, match="refused with 403"):
        await pods.on(["n1", "n2"])
