"""The agent's loop against a fake API server over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from noderuntime.agent.instance import Instance
from noderuntime.agent.kube_client import Access, InstanceApi
from noderuntime.agent.loop import Loop, pause_after
from noderuntime.agent.report import NodeState
from noderuntime.core.errors import Internal, NotFound, Unavailable

PATH = "/apis/noderuntime.dev/v1alpha1/noderuntimeinstances"


class FakeApi:
    """A fake API server with one instance, its watch and its status."""

    def __init__(self) -> None:
        self.body: dict[str, Any] = {
            "metadata": {"name": "n1", "generation": 1, "resourceVersion": "1"},
            "spec": {"handlers": [{"name": "runc", "type": "Runc"}]},
        }
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.patches: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.patched = asyncio.Event()
        self.refuse = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get(f"{PATH}/n1", self.get)
        app.router.add_get(PATH, self.watch)
        app.router.add_patch(f"{PATH}/n1/status", self.patch)
        return app

    async def get(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers["Authorization"])
        if self.refuse:
            return web.json_response({"message": "no\nway"}, status=self.refuse)
        return web.json_response(self.body)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        assert request.query["fieldSelector"] == "metadata.name=n1"
        answer = web.StreamResponse()
        await answer.prepare(request)
        while event := await self.events.get():
            await answer.write(json.dumps(event).encode() + b"\n")
        return answer

    async def patch(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/merge-patch+json"
        self.patches.append((await request.json())["status"])
        self.patched.set()
        return web.json_response({**self.body, "status": self.patches[-1]})


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
    fake = FakeApi()
    runner = web.AppRunner(fake.app(), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (tmp_path / "token").write_text("first")
    port = runner.addresses[0][1]
    yield fake, InstanceApi(Access(f"http://127.0.0.1:{port}", tmp_path), "n1")
    fake.events.put_nowait({})
    await runner.cleanup()


async def test_loop_reconciles_new_specs_and_reports_transitions_once(
    served: tuple[FakeApi, InstanceApi],
) -> None:
    fake, api = served
    node = FakeNode()
    task = asyncio.create_task(Loop(api, node).run())  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        assert (await node.reconciled.get()).generation == 1
        await fake.patched.wait()
        changed = {**fake.body, "metadata": {**fake.body["metadata"], "generation": 2}}
        fake.events.put_nowait({"type": "MODIFIED", "object": changed})
        assert (await node.reconciled.get()).generation == 2
        # A status that the agent patched itself does not cause a reconciliation.
        fake.events.put_nowait({"type": "MODIFIED", "object": {**changed, "status": {"phase": "Ready"}}})
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert node.reconciled.empty()
    assert len(fake.patches) == 1
    assert fake.patches[0]["phase"] == "Ready"


async def test_loop_without_an_instance_releases_the_node(served: tuple[FakeApi, InstanceApi]) -> None:
    fake, api = served
    fake.refuse = 404
    node = FakeNode()
    task = asyncio.create_task(Loop(api, node).run())  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await node.released.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fake.patches == []


@pytest.mark.parametrize("phase", ["Degraded", "Failed"])
def test_healed_failure_is_reported_within_twelve_seconds(phase: str) -> None:
    longest_jitter = 1.15
    assert pause_after(phase) * longest_jitter < 12
    assert pause_after("Ready") == 60


async def test_api_rereads_the_token_every_time(served: tuple[FakeApi, InstanceApi], tmp_path: Path) -> None:
    fake, api = served
    await api.get()
    (tmp_path / "token").write_text("second\n")
    await api.get()
    assert fake.tokens == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (503, Unavailable), (403, Internal)])
async def test_api_errors_contain_the_servers_message(
    served: tuple[FakeApi, InstanceApi], status: int, error: type[Exception]
) -> None:
    fake, api = served
    fake.refuse = status
    with pytest.raises(error, match=r"API server: .*no"):
        await api.get()


async def test_api_without_a_server_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    with pytest.raises(Unavailable):
        await InstanceApi(Access("http://127.0.0.1:1", tmp_path), "n1").get()


async def test_watch_ends_when_the_instance_is_deleted(served: tuple[FakeApi, InstanceApi]) -> None:
    fake, api = served
    fake.events.put_nowait({"type": "DELETED", "object": fake.body})
    with pytest.raises(NotFound):
        async for _ in api.watch("1"):
            pass
