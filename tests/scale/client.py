"""A small client of the API server, for the test itself and for simulated nodes."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import aiohttp

Json = dict[str, Any]

NODES = "/api/v1/nodes"
RUNTIMES = "/apis/noderuntime.dev/v1alpha1/noderuntimes"
INSTANCES = "/apis/noderuntime.dev/v1alpha1/noderuntimeinstances"
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_RETRY_SECONDS = 1.0


class ApiError(RuntimeError):
    """The API server refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """A client with a user's certificate."""

    def __init__(self, url: str, tls: ssl.SSLContext, connections: int = 32) -> None:
        self._session = aiohttp.ClientSession(
            url,
            connector=aiohttp.TCPConnector(ssl=tls, limit=connections),
            timeout=aiohttp.ClientTimeout(total=None, connect=30, sock_read=600),
            read_bufsize=1 << 20,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def request(self, method: str, path: str, body: Json | None = None, **query: str) -> Json:
        """Return the answer. A PATCH is a merge patch. Raises ApiError."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, path, data=data, params=query, headers={"Content-Type": kind}
        ) as answer:
            found: Json = await answer.json(content_type=None)
            if answer.status >= 400:
                raise ApiError(answer.status, str(found.get("message", "")))
            return found

    async def get(self, path: str) -> Json:
        """Return an object. Raises ApiError."""
        return await self.request("GET", path)

    async def list(self, path: str, accept: str = "application/json", **query: str) -> Json:
        """Return a list of all objects of a collection, at the newest resourceVersion."""
        async with self._session.get(path, params=query, headers={"Accept": accept}) as answer:
            found: Json = await answer.json(content_type=None)
            if answer.status >= 400:
                raise ApiError(answer.status, str(found.get("message", "")))
            return found

    async def follow(
        self, path: str, *, labels: str = "", metadata_only: bool = False
    ) -> AsyncIterator[tuple[str, Json]]:
        """Yield ("LIST", list) at first and after each gap, and the events of the watch in between.

        Runs until it is cancelled; an unreachable API server is retried.
        """
        accepts = (_METADATA_LIST, _METADATA_ONLY) if metadata_only else ("application/json",) * 2
        query = {"labelSelector": labels} if labels else {}
        while True:
            try:
                found = await self.list(path, accepts[0], **query)
                yield "LIST", found
                version = found["metadata"]["resourceVersion"]
                async with aclosing(self._events(path, accepts[1], version, query)) as events:
                    async for event in events:
                        yield event["type"], event["object"]
            except (aiohttp.ClientError, OSError, TimeoutError, ApiError):
                pass
            await asyncio.sleep(_RETRY_SECONDS)

    async def _events(
        self, path: str, accept: str, version: str, query: dict[str, str]
    ) -> AsyncGenerator[Json]:
        """Yield events until the watch fails or the server requires a new list."""
        params = {**query, "watch": "1", "resourceVersion": version}
        async with self._session.get(path, params=params, headers={"Accept": accept}) as answer:
            async for line in answer.content:
                event: Json = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event
