"""Each failure of a call is reported once: to its caller, in the log with the method's name, or both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from noderuntime.core import tasks
from noderuntime.core.errors import HostError, NotFound, Unavailable
from noderuntime.core.tasks import Work
from noderuntime.cri.v1 import api_pb2, api_pb2_grpc
from noderuntime.edge.router.router import Router
from noderuntime.edge.server.dispatch import Dispatcher
from noderuntime.edge.server.listen import SERVER_OPTIONS
from noderuntime.lifecycle.metrics.prometheus import Prometheus

BROKEN = HostError("read a file", 5, "Input/output error")


class Nothing:
    """A table without records."""

    def find(self, identifier: str) -> None:
        return None


class Server:
    """A server whose StopPodSandbox and GetContainerEvents do what a test sets, and a client of it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.runtime = api_pb2_grpc.RuntimeServiceStub(channel)
        self.metrics = Prometheus()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.verb: Callable[[], Awaitable[None]] = self.hang
        self.events: Callable[[], AsyncGenerator[api_pb2.ContainerEventResponse]] = self.endless

    async def stop(self, request: Any) -> api_pb2.StopPodSandboxResponse:
        self.begun.set()
        try:
            await self.verb()
        finally:
            self.ended.set()
        return api_pb2.StopPodSandboxResponse()

    async def hang(self) -> None:
        await asyncio.Event().wait()

    async def endless(self) -> AsyncGenerator[api_pb2.ContainerEventResponse]:
        try:
            while True:
                yield api_pb2.ContainerEventResponse(container_id="c" * 100_000)
                await asyncio.sleep(0)
        finally:
            self.ended.set()

    async def call(self) -> grpc.StatusCode:
        """Call StopPodSandbox and return the code."""
        try:
            await self.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id="a"), timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def leave(self) -> None:
        """Call StopPodSandbox, and leave when the verb has begun."""
        call = self.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id="a"))
        await asyncio.wait_for(self.begun.wait(), 5)
        call.cancel()
        await asyncio.wait_for(self.ended.wait(), 5)

    async def counted(self, method: str, code: str) -> None:
        """Wait until the call is counted, which is after it was logged."""
        series = f'noderuntime_cri_calls_total{{code="{code}",method="{method}"}} 1.0'.encode()
        async with asyncio.timeout(5):
            while series not in self.metrics.text():
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # for what gRPC itself would log


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    socket = f"unix:{tmp_path / 'cri.sock'}"
    channel = grpc.aio.insecure_channel(socket)
    made = Server(channel)
    router = Router(Nothing(), Nothing(), ("runc",), None)
    verbs = {"StopPodSandbox": made.stop}
    front = grpc.aio.server(options=SERVER_OPTIONS)
    front.add_generic_rpc_handlers([Dispatcher(router, verbs, lambda _: made.events(), made.metrics)])
    front.add_insecure_port(socket)
    await front.start()
    yield made
    await channel.close()
    await front.stop(0)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, dict[str, Any]]]]:
    """Return the warnings and errors of all loggers."""
    return lambda: [
        (record.getMessage(), getattr(record, "noderuntime_values", {}))
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


def _raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def verb() -> None:
        raise error

    return verb


def _failing_cleanup(error: Exception) -> Callable[[], Awaitable[None]]:
    async def verb() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    return verb


async def test_expected_error_reaches_the_caller_only(server: Server, logged: Any) -> None:
    server.verb = _raising(NotFound("no sandbox a"))
    assert await server.call() is grpc.StatusCode.NOT_FOUND
    assert logged() == []


@pytest.mark.parametrize(
    ("error", "message"), [(BROKEN, "call failed"), (KeyError("pid"), "call failed unexpectedly")]
)
async def test_internal_error_is_logged_once(
    server: Server, logged: Any, error: Exception, message: str
) -> None:
    server.verb = _raising(error)
    assert await server.call() is grpc.StatusCode.INTERNAL
    ((text, values),) = logged()
    assert (text, values["method"]) == (message, "StopPodSandbox")
    assert ("pid" if isinstance(error, KeyError) else "Input/output error") in str(values)


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (NotFound("no sandbox a"), "call failed after its caller had left", "NOT_FOUND"),
        (BROKEN, "call failed after its caller had left", "INTERNAL"),
        (KeyError("pid"), "call failed unexpectedly", "INTERNAL"),
    ],
)
async def test_error_after_the_caller_left_is_logged_once(
    server: Server, logged: Any, error: Exception, message: str, code: str
) -> None:
    server.verb = _failing_cleanup(error)
    await server.leave()
    await server.counted("StopPodSandbox", code)
    ((text, values),) = logged()
    assert (text, values["method"]) == (message, "StopPodSandbox")


async def test_caller_that_leaves_is_no_error(server: Server, logged: Any) -> None:
    await server.leave()
    await server.counted("StopPodSandbox", "CANCELLED")
    assert logged() == []


@pytest.mark.parametrize("callers", [1, 3])
async def test_failure_of_kept_work_is_logged_once_for_all_callers(
    server: Server, logged: Any, callers: int
) -> None:
    gate, work = asyncio.Event(), Work()

    async def stop() -> None:
        await gate.wait()
        raise Unavailable("the plugin is away")

    async def once() -> None:
        await work.once("a", b"", stop, name="StopPodSandbox a")

    server.verb = once
    for _ in range(callers):
        server.begun.clear()
        server.ended.clear()
        await server.leave()
    gate.set()
    await work.drain(5)
    await asyncio.sleep(0)
    ((_, values),) = logged()
    assert (values["work"], str(values["error"])) == ("StopPodSandbox a", "the plugin is away")


async def test_failure_of_kept_work_that_a_retry_receives_is_not_logged(server: Server, logged: Any) -> None:
    gate, work = asyncio.Event(), Work()

    async def stop() -> None:
        await gate.wait()
        raise Unavailable("the plugin is away")

    async def once() -> None:
        await work.once("a", b"", stop, name="StopPodSandbox a")

    server.verb = once
    await server.leave()
    server.begun.clear()
    retry = tasks.start(server.call(), name="retry")
    await asyncio.wait_for(server.begun.wait(), 5)
    await asyncio.sleep(0.05)
    gate.set()
    assert await retry is grpc.StatusCode.UNAVAILABLE
    assert logged() == []


async def test_cancellation_from_within_ends_the_call(server: Server, logged: Any) -> None:
    """gRPC would take it for the caller's and never answer."""

    async def cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    server.verb = cancelled
    assert await server.call() is grpc.StatusCode.INTERNAL
    ((text, values),) = logged()
    assert (text, values["method"]) == ("call failed unexpectedly", "StopPodSandbox")
    await server.counted("StopPodSandbox", "INTERNAL")


async def test_stream_that_fails_is_logged_once(server: Server, logged: Any) -> None:
    async def failing() -> AsyncGenerator[api_pb2.ContainerEventResponse]:
        yield api_pb2.ContainerEventResponse(container_id="a")
        raise KeyError("pid")

    server.events = failing
    events = server.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
    assert (await events.read()).container_id == "a"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events.read()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    ((text, values),) = logged()
    assert (text, values["method"]) == ("call failed unexpectedly", "GetContainerEvents")


@pytest.mark.parametrize("reads", [True, False], ids=["reader", "slow reader"])
async def test_stream_whose_client_leaves_is_closed_at_once(server: Server, logged: Any, reads: bool) -> None:
    events = server.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
    for _ in range(30 if reads else 1):
        await events.read()
    await asyncio.sleep(0.1)  # the flow control window is full
    events.cancel()
    await asyncio.wait_for(server.ended.wait(), 5)
    await server.counted("GetContainerEvents", "CANCELLED")
    assert logged() == []


async def test_stream_whose_cleanup_fails_is_logged_once(server: Server, logged: Any) -> None:
    async def failing() -> AsyncGenerator[api_pb2.ContainerEventResponse]:
        try:
            yield api_pb2.ContainerEventResponse(container_id="a")
            await asyncio.Event().wait()
        finally:
            raise BROKEN

    server.events = failing
    events = server.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
    await events.read()
    events.cancel()
    await server.counted("GetContainerEvents", "INTERNAL")
    ((text, values),) = logged()
    assert text == "call failed after its caller had left"
    assert (values["method"], "Input/output error" in values["error"]) == ("GetContainerEvents", True)
