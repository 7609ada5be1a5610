"""The door between a client and an upstream that plays its part over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from noderuntime.core.errors import NotFound
from noderuntime.cri.v1 import api_pb2, api_pb2_grpc
from noderuntime.edge.router.router import Router
from noderuntime.edge.router.upstream import Upstream
from noderuntime.edge.server.dispatch import Dispatcher
from noderuntime.edge.server.listen import SERVER_OPTIONS
from noderuntime.lifecycle.metrics.prometheus import Prometheus

_LIST = "/runtime.v1.RuntimeService/ListPodSandbox"


class Record:
    id = "ours1"


class Ours:
    """A table with one record."""

    def find(self, identifier: str) -> Record | None:
        return Record() if "ours1".startswith(identifier) else None


class FakeUpstream(grpc.GenericRpcHandler):
    """Answers every call by a function of the test's; remembers what came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.metadata: dict[str, str | bytes] = {}
        self.remaining: float | None = None
        self.cancelled = asyncio.Event()
        self.serve: Callable[[bytes, Any], AsyncIterator[bytes]] = self._echo

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def serve(raw: bytes, context: Any) -> AsyncIterator[bytes]:
            self.seen.append((handler_call_details.method, raw))
            self.metadata = dict(context.invocation_metadata())
            self.remaining = context.time_remaining()
            async for body in self.serve(raw, context):
                yield body

        return grpc.unary_stream_rpc_method_handler(serve)

    @staticmethod
    async def _echo(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        yield raw


class Node:
    """A client, the door and the upstream."""

    def __init__(self, channel: grpc.aio.Channel, upstream: FakeUpstream, metrics: Prometheus) -> None:
        self.channel = channel
        self.metrics = metrics
        self.upstream = upstream
        self.runtime = api_pb2_grpc.RuntimeServiceStub(channel)


async def _list_pods(request: Any) -> api_pb2.ListPodSandboxResponse:
    return api_pb2.ListPodSandboxResponse(items=[api_pb2.PodSandbox(id="ours1")])


async def _stream_pods(request: Any) -> api_pb2.StreamPodSandboxesResponse:
    ours = [api_pb2.PodSandbox(id=f"ours{number}") for number in range(1, 1202)]
    return api_pb2.StreamPodSandboxesResponse(pod_sandboxes=ours)


async def _stream_containers(request: Any) -> api_pb2.StreamContainersResponse:
    return api_pb2.StreamContainersResponse()


async def _stop(request: api_pb2.StopPodSandboxRequest) -> api_pb2.StopPodSandboxResponse:
    raise NotFound(f"no sandbox {request.pod_sandbox_id}")


async def _events(request: Any) -> AsyncIterator[api_pb2.ContainerEventResponse]:
    yield api_pb2.ContainerEventResponse(container_id="ours1")
    await asyncio.Event().wait()


Started = Callable[[bool], Awaitable[Node]]


async def _serve(handler: grpc.GenericRpcHandler, socket: Path) -> grpc.aio.Server:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers([handler])
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    return server


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Started]:
    undo: list[Callable[[], Awaitable[None]]] = []

    async def started(with_upstream: bool) -> Node:
        fake, metrics = FakeUpstream(), Prometheus()
        upstream = None
        if with_upstream:
            behind = await _serve(fake, tmp_path / "up.sock")
            upstream = Upstream(tmp_path / "up.sock", metrics.upstream_failed)
            undo.extend((lambda: behind.stop(0), upstream.close))
        verbs = {
            "ListPodSandbox": _list_pods,
            "StreamPodSandboxes": _stream_pods,
            "StreamContainers": _stream_containers,
            "StopPodSandbox": _stop,
        }
        door = Dispatcher(Router(Ours(), Ours(), ("runc",), upstream), verbs, _events, metrics)
        front = await _serve(door, tmp_path / "front.sock")
        channel = grpc.aio.insecure_channel(f"unix:{tmp_path / 'front.sock'}")
        undo.extend((lambda: front.stop(0), channel.close))
        return Node(channel, fake, metrics)

    yield started
    for step in reversed(undo):
        await step()


@pytest_asyncio.fixture
async def node(start: Started) -> Node:
    return await start(True)


@pytest_asyncio.fixture
async def alone(start: Started) -> Node:
    return await start(False)


async def test_forwarded_request_is_byte_identical(node: Node) -> None:
    # Field 900 is none of ours, and field 1 stands behind it: an encoder would not write it so.
    raw = b"\xa2\x38\x03new" + b"\x0a\x05other"
    assert await node.channel.unary_unary("/runtime.v1.RuntimeService/StopContainer")(raw) == raw
    assert node.upstream.seen == [("/runtime.v1.RuntimeService/StopContainer", raw)]


async def test_forwarded_call_keeps_metadata_and_deadline(node: Node) -> None:
    async def serve(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last-bin", b"\x00\xff"),))
        yield raw

    node.upstream.serve = serve
    call = node.channel.unary_unary("/runtime.v1.ImageService/ImageFsInfo")(
        b"", timeout=30, metadata=(("traceparent", "00-ab"),)
    )
    await call
    assert node.upstream.metadata["traceparent"] == "00-ab"
    assert node.upstream.remaining is not None
    assert 20 < node.upstream.remaining <= 31  # gRPC rounds up
    assert dict(await call.initial_metadata())["first"] == "1"
    assert dict(await call.trailing_metadata())["last-bin"] == b"\x00\xff"


async def test_call_without_deadline_is_forwarded_without_one(node: Node) -> None:
    await node.channel.unary_unary("/runtime.v1.ImageService/ImageFsInfo")(b"")
    assert node.upstream.remaining is None


@pytest.mark.parametrize("path", ["/runtime.v1.ImageService/ImageFsInfo", "/runtime.v1.Other/New", _LIST])
async def test_upstream_failure_keeps_code_details_and_trailers(node: Node, path: str) -> None:
    async def serve(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.abort(
            grpc.StatusCode.DATA_LOSS, "two\nlines", (("grpc-status-details-bin", b"\x08\x0f"),)
        )
        yield b""

    node.upstream.serve = serve
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.channel.unary_unary(path)(b"")
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert caught.value.details() == "two\nlines"
    assert dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"] == b"\x08\x0f"


async def test_cancelled_call_is_cancelled_upstream(node: Node) -> None:
    arrived = asyncio.Event()

    async def serve(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        arrived.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            node.upstream.cancelled.set()
            raise
        yield b""

    node.upstream.serve = serve
    call = node.channel.unary_unary("/runtime.v1.ImageService/ImageFsInfo")(b"")
    waiting = asyncio.ensure_future(_outcome(call))
    await asyncio.wait_for(arrived.wait(), 5)
    call.cancel()
    await asyncio.wait_for(node.upstream.cancelled.wait(), 5)
    await waiting


async def _outcome(call: Any) -> object:
    try:
        return await call
    except asyncio.CancelledError:
        return None


async def test_list_joins_both_runtimes(node: Node) -> None:
    theirs = api_pb2.ListPodSandboxResponse(items=[api_pb2.PodSandbox(id="theirs")])

    async def serve(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        yield theirs.SerializeToString() + b"\xa2\x38\x03new"  # a field that we do not know stays

    node.upstream.serve = serve
    raw = await node.channel.unary_unary(_LIST)(b"")
    listed = api_pb2.ListPodSandboxResponse.FromString(raw)
    assert [item.id for item in listed.items] == ["theirs", "ours1"]
    assert b"\xa2\x38\x03new" in raw


async def test_streamed_list_joins_both_runtimes(node: Node) -> None:
    async def serve(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        for name in ("a", "b"):
            item = api_pb2.PodSandbox(id=name)
            yield api_pb2.StreamPodSandboxesResponse(pod_sandboxes=[item]).SerializeToString()

    node.upstream.serve = serve
    call = node.runtime.StreamPodSandboxes(api_pb2.StreamPodSandboxesRequest())
    reported = [[one.id for one in part.pod_sandboxes] async for part in call]
    assert reported[:2] == [["a"], ["b"]]
    assert [len(part) for part in reported[2:]] == [500, 500, 201], "a long list comes in parts"
    assert reported[2][0] == "ours1"
    assert reported[-1][-1] == "ours1201"


async def test_empty_streamed_list_has_no_message(alone: Node) -> None:
    call = alone.runtime.StreamContainers(api_pb2.StreamContainersRequest())
    assert [part async for part in call] == []


async def test_streamed_list_fails_if_the_upstream_fails(node: Node) -> None:
    async def serve(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no streams here")
        yield b""

    node.upstream.serve = serve
    call = node.runtime.StreamPodSandboxes(api_pb2.StreamPodSandboxesRequest())
    with pytest.raises(grpc.aio.AioRpcError, match="no streams here"):
        await call.read()  # not ours: half a list is worse than none


async def test_event_stream_ends_with_the_upstreams_stream(node: Node) -> None:
    end = asyncio.Event()

    async def serve(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        yield api_pb2.ContainerEventResponse(container_id="theirs").SerializeToString()
        await end.wait()

    node.upstream.serve = serve
    events = node.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
    assert {(await events.read()).container_id, (await events.read()).container_id} == {"ours1", "theirs"}
    end.set()
    assert await asyncio.wait_for(events.read(), 5) is grpc.aio.EOF


async def test_verbs_answer_for_our_ids_only(node: Node) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id="ours1"))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "no sandbox ours1")
    await node.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id="theirs"))
    assert len(node.upstream.seen) == 1


@pytest.mark.parametrize("name", ["CheckpointContainer"])
async def test_unsupported_call_is_unimplemented_in_one_line(node: Node, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.channel.unary_unary(f"/runtime.v1.RuntimeService/{name}")(b"\x0a\x05ours1")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == f"{name} is not supported for pods of noderuntime's handlers"
    assert node.upstream.seen == []


@pytest.mark.parametrize("name", ["PullImage", "ListImages", "ImageFsInfo"])
async def test_image_call_without_upstream_is_unimplemented(alone: Node, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alone.channel.unary_unary(f"/runtime.v1.ImageService/{name}")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == (
        f"{name} is not supported: this node has no upstream runtime to forward it to"
    )


async def test_list_without_upstream_is_ours(alone: Node) -> None:
    listed = await alone.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest())
    assert [item.id for item in listed.items] == ["ours1"]
    events = alone.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
    assert (await events.read()).container_id == "ours1"
    events.cancel()


async def test_unknown_call_without_upstream_is_unimplemented(alone: Node) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alone.channel.unary_unary("/runtime.v9.Future/Call")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_message_that_is_not_protobuf_is_refused(node: Node) -> None:
    call = node.channel.unary_unary("/runtime.v1.ImageService/ImageFsInfo")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\x00" * (17 << 20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def _counted(node: Node, name: str) -> dict[str, str]:
    """Return the series of a counter that are not zero, by their labels."""
    lines = node.metrics.text().decode().splitlines()
    return dict(line.removeprefix(name).rsplit(" ", 1) for line in lines if line.startswith(f"{name}{{"))


async def test_calls_are_counted_by_method_and_code(node: Node) -> None:
    await node.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest())
    with pytest.raises(grpc.aio.AioRpcError):
        await node.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id="ours1"))
    for number in range(3):
        await node.channel.unary_unary(f"/runtime.v1.Other/New{number}")(b"")
    assert _counted(node, "noderuntime_cri_calls_total") == {
        '{code="OK",method="ListPodSandbox"}': "1.0",
        '{code="NOT_FOUND",method="StopPodSandbox"}': "1.0",
        '{code="OK",method="other"}': "3.0",
    }
    durations = _counted(node, "noderuntime_cri_call_duration_seconds_count")
    assert durations == {
        '{method="ListPodSandbox"}': "1.0",
        '{method="StopPodSandbox"}': "1.0",
        '{method="other"}': "3.0",
    }


async def test_cancelled_calls_and_upstream_errors_are_counted(node: Node) -> None:
    async def serve(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        if raw:
            await asyncio.Event().wait()
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost")
        yield b""

    node.upstream.serve = serve
    path = "/runtime.v1.ImageService/ImageFsInfo"
    for body, timeout in ((b"", 10.0), (b"\x12\x00", 0.1)):
        with pytest.raises(grpc.aio.AioRpcError):
            await node.channel.unary_unary(path)(body, timeout=timeout)
    assert _counted(node, "noderuntime_upstream_errors_total")['{code="DATA_LOSS"}'] == "1.0"
    async with asyncio.timeout(10):
        while len(calls := _counted(node, "noderuntime_cri_calls_total")) < 2:
            await asyncio.sleep(0.01)
    assert calls.pop('{code="DATA_LOSS",method="ImageFsInfo"}') == "1.0"
    (late,) = calls
    assert late in {f'{{code="{code}",method="ImageFsInfo"}}' for code in ("CANCELLED", "DEADLINE_EXCEEDED")}
