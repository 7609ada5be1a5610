"""The end of a server: calls in progress are finished while the socket still serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from noderuntime.core import tasks
from noderuntime.cri.v1 import api_pb2, api_pb2_grpc
from noderuntime.edge.router.router import Router
from noderuntime.edge.server.dispatch import Dispatcher
from noderuntime.edge.server.serve import GRACE_SECONDS, serve
from noderuntime.lifecycle.metrics.base import Metrics


class Nothing:
    def find(self, identifier: str) -> None:
        return None


class Served:
    """A server whose call Status takes until it is released, with an open stream of events."""

    def __init__(self, socket: Path) -> None:
        self.stop = asyncio.Event()
        self.begun = asyncio.Event()
        self.release = asyncio.Event()
        verbs = {"Status": self._status, "Version": self._version}
        door = Dispatcher(Router(Nothing(), Nothing(), ("runc",), None), verbs, self._events, Metrics())
        self.task = tasks.start(serve(door, socket, self.stop), name="serve")
        self.channel = grpc.aio.insecure_channel(f"unix:{socket}")
        self.runtime = api_pb2_grpc.RuntimeServiceStub(self.channel)

    async def _status(self, request: Any) -> api_pb2.StatusResponse:
        self.begun.set()
        await self.release.wait()
        return api_pb2.StatusResponse()

    async def _version(self, request: Any) -> api_pb2.VersionResponse:
        return api_pb2.VersionResponse(runtime_name="noderuntime")

    async def _events(self, request: Any) -> AsyncIterator[api_pb2.ContainerEventResponse]:
        yield api_pb2.ContainerEventResponse(container_id="c1")
        await asyncio.Event().wait()

    async def version(self) -> str:
        return (await self.runtime.Version(api_pb2.VersionRequest(), wait_for_ready=True)).runtime_name


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    found = Served(tmp_path / "cri.sock")
    async with asyncio.timeout(GRACE_SECONDS - 1):  # so that no test waits for the grace period
        assert await found.version() == "noderuntime"
        yield found
    await found.channel.close()
    found.task.cancel()
    with suppress(asyncio.CancelledError):
        await found.task


async def test_calls_in_progress_end_while_the_socket_serves(served: Served) -> None:
    call = served.runtime.Status(api_pb2.StatusRequest())
    await served.begun.wait()
    served.stop.set()
    assert await served.version() == "noderuntime"
    served.release.set()
    assert await call == api_pb2.StatusResponse()
    await served.task


async def test_open_event_stream_does_not_delay_the_end(served: Served) -> None:
    stream = served.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
    assert (await stream.read()).container_id == "c1"
    served.stop.set()
    await served.task
    with pytest.raises(grpc.aio.AioRpcError) as cut_off:
        await stream.read()
    assert cut_off.value.code() is grpc.StatusCode.UNAVAILABLE
