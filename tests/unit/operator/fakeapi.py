"""A small API server in the test's process: it lists, watches, patches and keeps leases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from noderuntime_operator.kube import Kube
from noderuntime_operator.metrics import Metrics

Json = dict[str, Any]


class FakeApi:
    """Objects by path, with a resourceVersion for the whole server; events go to all watches of a path."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {}
        self.requests: list[tuple[str, str]] = []
        """The method and path of each request, with the query."""
        self.refusals: dict[tuple[str, str], list[int]] = {}
        """By method and path: the HTTP statuses of the next responses."""
        self.selects: Callable[[str, Json], bool] = lambda _query, _body: True
        """Whether a field selector selects an object."""
        self.on_request: Callable[[], object] = lambda: None
        self.version = 1
        self.oldest = 0
        """Watches from an older resourceVersion are refused with 410."""
        self.watches: list[tuple[str, asyncio.Queue[Json | None]]] = []
        self.watched = asyncio.Condition()

    def put(self, path: str, name: str, **fields: Any) -> Json:
        """Create or change an object, and send the event."""
        self.version += 1
        known = self.objects.setdefault(path, {}).get(name)
        meta = {"name": name, "uid": f"uid-{name}", "generation": 1, **fields.pop("metadata", {})}
        body = {"metadata": {**meta, "resourceVersion": str(self.version)}, **fields}
        self.objects[path][name] = body
        self.send(path, {"type": "MODIFIED" if known else "ADDED", "object": body})
        return body

    def remove(self, path: str, name: str) -> None:
        self.version += 1
        body = self.objects[path].pop(name)
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        self.send(path, {"type": "DELETED", "object": body})

    def send(self, path: str, event: Json) -> None:
        for watched, queue in self.watches:
            if watched == path:
                queue.put_nowait(event)

    def bookmark(self, path: str) -> None:
        self.version += 1
        self.send(path, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}})

    def cut(self) -> None:
        """End all watches."""
        for _, queue in self.watches:
            queue.put_nowait(None)
        self.watches.clear()

    async def until_watched(self, path: str) -> None:
        async with self.watched:
            await self.watched.wait_for(lambda: any(watched == path for watched, _ in self.watches))

    async def settled(self) -> None:
        """Let the server and its clients run."""
        await asyncio.sleep(0.01)

    def count(self, method: str, part: str) -> int:
        return sum(m == method and part in path for m, path in self.requests)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Kube]:
        """Serve on loopback; yield a client."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with Kube(ApiClient(Configuration(host=f"http://{host}:{port}")), "ns", Metrics()) as kube:
            yield kube
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        self.on_request()
        if planned := self.refusals.get((request.method, request.path)):
            return _status(planned.pop(0))
        if request.method == "GET" and request.path in self.objects and "watch" in request.query:
            return await self._watch(request)
        if request.method == "GET" and request.path in self.objects:
            return web.json_response(self._page(request))
        return await self._write(request)

    def _page(self, request: web.Request) -> Json:
        query = request.query.get("fieldSelector", "")
        items = [body for body in self.objects[request.path].values() if self.selects(query, body)]
        start, limit = int(request.query.get("continue") or 0), int(request.query["limit"])
        more = {"continue": str(start + limit)} if start + limit < len(items) else {}
        return {"metadata": {"resourceVersion": str(self.version), **more}, "items": items[start:][:limit]}

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if int(request.query["resourceVersion"]) < self.oldest:
            await _line(response, {"type": "ERROR", "object": {"code": 410, "message": "too old"}})
            return response
        queue: asyncio.Queue[Json | None] = asyncio.Queue()
        for body in _newer(self.objects[request.path], int(request.query["resourceVersion"])):
            queue.put_nowait({"type": "MODIFIED", "object": body})
        async with self.watched:
            self.watches.append((request.path, queue))
            self.watched.notify_all()
        while event := await queue.get():
            await _line(response, event)
        return response

    async def _write(self, request: web.Request) -> web.Response:
        """Answer a write, or the reading of one object."""
        collection, _, name = request.path.rpartition("/")
        known = self.objects.get(collection, {}).get(name)
        if request.method == "GET":
            return web.json_response(known) if known else _status(404)
        body = json.loads(await request.read() or "{}")
        if request.method == "POST":
            meta = body["metadata"]
            name = meta.pop("name", None) or f"{meta.pop('generateName')}1"
            return web.json_response(self.put(request.path, name, **body))
        sent = body.get("metadata", {}).get("resourceVersion")
        if request.method == "PUT" and known and sent != known["metadata"]["resourceVersion"]:
            return _status(409)
        body.get("metadata", {}).pop("name", None)
        return web.json_response(self.put(collection, name, **body))


def _newer(objects: dict[str, Json], version: int) -> Iterator[Json]:
    """Yield the objects that changed after a resourceVersion."""
    return (body for body in objects.values() if int(body["metadata"]["resourceVersion"]) > version)


async def _line(response: web.StreamResponse, event: Json) -> None:
    await response.write(json.dumps(event).encode() + b"\n")


def _status(code: int) -> web.Response:
    return web.json_response({"kind": "Status", "message": f"refused with {code}"}, status=code)
