"""A fake API server with one instance, its watch and its status, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from noderuntime.agent.kube_client import Access, InstanceApi

PATH = "/apis/noderuntime.dev/v1alpha1/noderuntimeinstances"


class FakeApi:
    """The server. An empty event ends a watch."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = {
            "metadata": {"name": "n1", "generation": 1, "resourceVersion": "1"},
            "spec": {"handlers": [{"name": "runc", "type": "Runc"}]},
        }
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.patches: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.watches: list[dict[str, str]] = []
        """The query of each watch."""
        self.peers: set[Any] = set()
        """The addresses of the connections."""
        self.patched = asyncio.Event()
        self.refuse = 0
        self.refusals: list[int] = []
        """The statuses of the next requests that are refused."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get(PATH, self.read)
        app.router.add_patch(f"{PATH}/n1/status", self.patch)
        return app

    async def read(self, request: web.Request) -> web.StreamResponse:
        assert request.query["fieldSelector"] == "metadata.name=n1"
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        self.tokens.append(request.headers["Authorization"])
        if self.refusals:
            return web.json_response({"message": "no\nway"}, status=self.refusals.pop(0))
        if self.refuse:
            return web.json_response({"message": "no\nway"}, status=self.refuse)
        if "watch" in request.query:
            return await self.watch(request)
        items = [self.body] if self.body else []
        return web.json_response({"metadata": {"resourceVersion": "9"}, "items": items})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        self.watches.append(dict(request.query))
        answer = web.StreamResponse()
        await answer.prepare(request)
        while event := await self.events.get():
            await answer.write(json.dumps(event).encode() + b"\n")
        return answer

    async def patch(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/merge-patch+json"
        if self.refuse:
            return web.json_response({"message": "no\nway"}, status=self.refuse)
        self.patches.append((await request.json())["status"])
        self.patched.set()
        return web.json_response({**(self.body or {}), "status": self.patches[-1]})


@asynccontextmanager
async def serve(directory: Path) -> AsyncIterator[tuple[FakeApi, InstanceApi]]:
    """Yield the server and a client of it, whose token is in the directory."""
    fake = FakeApi()
    runner = web.AppRunner(fake.app(), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (directory / "token").write_text("first")
    api = InstanceApi(Access(f"http://127.0.0.1:{runner.addresses[0][1]}", directory), "n1")
    try:
        yield fake, api
    finally:
        fake.events.put_nowait({})
        await api.close()
        await runner.cleanup()
