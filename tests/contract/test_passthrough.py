"""Responses of the upstream arrive unchanged: a real containerd behind our dispatcher."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from realnode.containerd import IMAGE, Containerd
from realnode.traces import remove_cgroups

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2, api_pb2_grpc
from noderuntime.edge.router.router import Router
from noderuntime.edge.router.routes import methods
from noderuntime.edge.router.upstream import Upstream
from noderuntime.edge.server.dispatch import Dispatcher
from noderuntime.edge.server.serve import serve
from noderuntime.lifecycle.metrics.base import Metrics

_NAMES = itertools.count()
_CGROUPS = "/noderuntime-passthrough"


class Nothing:
    def find(self, identifier: str) -> None:
        return None


@dataclass
class OnlyOne:
    """A table with one record, which is itself."""

    id: str

    def find(self, identifier: str) -> OnlyOne | None:
        return self if self.id.startswith(identifier) else None


async def _no_pods(request: api_pb2.ListPodSandboxRequest) -> api_pb2.ListPodSandboxResponse:
    return api_pb2.ListPodSandboxResponse(items=[api_pb2.PodSandbox(id="ours")])


async def _no_containers(request: api_pb2.ListContainersRequest) -> api_pb2.ListContainersResponse:
    return api_pb2.ListContainersResponse()


async def _no_events(request: api_pb2.GetEventsRequest) -> AsyncIterator[api_pb2.ContainerEventResponse]:
    yield api_pb2.ContainerEventResponse(container_id="ours")
    await asyncio.Event().wait()


class Edge:
    """Our dispatcher in front of the upstream, and clients of both."""

    def __init__(self, socket: Path, upstream: Path) -> None:
        self.socket = socket
        self._direct = grpc.aio.insecure_channel(f"unix:{upstream}")
        self.channel = grpc.aio.insecure_channel(f"unix:{socket}")
        self.runtime = api_pb2_grpc.RuntimeServiceStub(self.channel)
        self.images = api_pb2_grpc.ImageServiceStub(self.channel)
        self.direct = api_pb2_grpc.RuntimeServiceStub(self._direct)

    async def close(self) -> None:
        await self.channel.close()
        await self._direct.close()


@pytest_asyncio.fixture
async def edge(tmp_path: Path, containerd: Containerd) -> AsyncIterator[Edge]:
    upstream = Upstream(containerd.socket)
    router = Router(Nothing(), Nothing(), ("runc",), upstream)
    verbs = {"ListPodSandbox": _no_pods, "ListContainers": _no_containers}
    stop = asyncio.Event()
    socket = tmp_path / "edge.sock"
    serving = asyncio.create_task(serve(Dispatcher(router, verbs, _no_events, Metrics()), socket, stop))
    front = Edge(socket, containerd.socket)
    try:
        await asyncio.wait_for(front.channel.channel_ready(), 10)
        yield front
    finally:
        await front.close()
        stop.set()
        await serving
        await upstream.close()
        remove_cgroups(_CGROUPS)


def _pod(handler: str = "") -> api_pb2.RunPodSandboxRequest:
    number = next(_NAMES)
    return api_pb2.RunPodSandboxRequest(
        config=api_pb2.PodSandboxConfig(
            metadata=api_pb2.PodSandboxMetadata(name=f"pass{number}", namespace="contract", uid=f"u{number}"),
            log_directory="/tmp",
            linux=api_pb2.LinuxPodSandboxConfig(cgroup_parent=f"{_CGROUPS}/{number}"),
        ),
        runtime_handler=handler,
    )


async def test_only_root_may_connect(edge: Edge) -> None:
    found = edge.socket.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.getuid() == 0


@pytest.mark.parametrize("handler", ["", "theirs"])
async def test_a_pod_of_the_upstream_is_managed_through_us(edge: Edge, handler: str) -> None:
    request = _pod(handler)
    pod = (await edge.runtime.RunPodSandbox(request)).pod_sandbox_id
    config = api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"),
        image=api_pb2.ImageSpec(image=IMAGE),
        command=["sleep", "1000"],
    )
    created = await edge.runtime.CreateContainer(
        api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=request.config)
    )
    container = created.container_id
    await edge.runtime.StartContainer(api_pb2.StartContainerRequest(container_id=container))

    output = await edge.runtime.ExecSync(
        api_pb2.ExecSyncRequest(container_id=container, cmd=["sh", "-c", "echo hello; exit 7"], timeout=10)
    )
    assert (output.stdout, output.exit_code) == (b"hello\n", 7)
    through = await edge.runtime.ContainerStatus(api_pb2.ContainerStatusRequest(container_id=container[:12]))
    direct = await edge.direct.ContainerStatus(api_pb2.ContainerStatusRequest(container_id=container[:12]))
    assert through == direct

    await edge.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod))
    await edge.runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod))


async def test_prefix_of_both_sides_is_ambiguous(edge: Edge, containerd: Containerd) -> None:
    pods = [(await edge.runtime.RunPodSandbox(_pod())).pod_sandbox_id for _ in range(17)]
    digits = [pod[0] for pod in pods]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    unused = "ab" if not any(pod.startswith("ab") for pod in pods) else "cd"
    upstream = Upstream(containerd.socket)
    method = next(method for method in methods() if method.name == "StopPodSandbox")
    try:
        for prefix, ambiguous in ((pods[0][:6], True), (twice, True), (unused, False)):
            table = OnlyOne(f"{prefix}{'0' * 58}")
            router = Router(table, Nothing(), ("runc",), upstream)
            request = api_pb2.StopPodSandboxRequest(pod_sandbox_id=prefix)
            if ambiguous:
                with pytest.raises(InvalidArgument, match=f"{prefix} is ambiguous"):
                    await router.is_ours(method, request)
            else:
                assert await router.is_ours(method, request)
    finally:
        await upstream.close()
        for pod in pods:
            await edge.runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod))


async def test_lists_contain_both_sides(edge: Edge) -> None:
    pod = (await edge.runtime.RunPodSandbox(_pod())).pod_sandbox_id
    try:
        listed = await edge.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest())
        assert {item.id for item in listed.items} == {pod, "ours"}
    finally:
        await edge.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod))
        await edge.runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod))


async def test_an_upstream_error_keeps_its_code_and_details(edge: Edge) -> None:
    request = api_pb2.ContainerStatusRequest(container_id="f" * 64)
    with pytest.raises(grpc.aio.AioRpcError) as through:
        await edge.runtime.ContainerStatus(request)
    with pytest.raises(grpc.aio.AioRpcError) as direct:
        await edge.direct.ContainerStatus(request)
    assert through.value.code() is direct.value.code() is grpc.StatusCode.NOT_FOUND
    assert through.value.details() == direct.value.details()
    assert dict(through.value.trailing_metadata() or ()) == dict(direct.value.trailing_metadata() or ())


async def test_an_unknown_call_gets_the_upstreams_response(edge: Edge) -> None:
    call = edge.channel.unary_unary("/runtime.v9.FutureService/Invent")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\x0a\x03abc")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "unknown service runtime.v9.FutureService" in (caught.value.details() or "")


async def test_a_call_outside_our_schema_reaches_the_upstream(edge: Edge) -> None:
    version = edge.channel.unary_unary("/containerd.services.version.v1.Version/Version")
    assert b"2.1" in await version(b"")


async def test_events_of_both_sides_are_merged(edge: Edge) -> None:
    events = edge.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
    first = await asyncio.wait_for(events.read(), 10)
    assert first.container_id == "ours"
    pod = (await edge.runtime.RunPodSandbox(_pod())).pod_sandbox_id
    try:
        async with asyncio.timeout(10):
            while (await events.read()).container_id != pod:
                pass
    finally:
        events.cancel()
        await edge.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod))
        await edge.runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod))


async def test_an_unknown_handler_is_rejected_with_all_names(edge: Edge) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await edge.runtime.RunPodSandbox(_pod("kata"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "no runtime handler 'kata' on this node (known: runc, theirs)"


async def test_a_deadline_reaches_the_upstream(edge: Edge) -> None:
    request = _pod()
    pod = (await edge.runtime.RunPodSandbox(request)).pod_sandbox_id
    config = api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"),
        image=api_pb2.ImageSpec(image=IMAGE),
        command=["sleep", "1000"],
    )
    created = await edge.runtime.CreateContainer(
        api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=request.config)
    )
    try:
        await edge.runtime.StartContainer(api_pb2.StartContainerRequest(container_id=created.container_id))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.runtime.ExecSync(
                api_pb2.ExecSyncRequest(container_id=created.container_id, cmd=["sleep", "30"]), timeout=0.5
            )
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        await edge.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod))
        await edge.runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod))


async def test_lists_fail_while_the_upstream_is_down_and_recover(edge: Edge, containerd: Containerd) -> None:
    containerd.stop()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "\n" not in (caught.value.details() or "")
        assert f"runtime at {containerd.socket} is not available" in (caught.value.details() or "")
    finally:
        containerd.start()
    async with asyncio.timeout(10):
        while True:
            with suppress(grpc.aio.AioRpcError):
                await edge.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest())
                break
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image="a" * 10_000)), id="long"),
        pytest.param(b"\x0a\x04\x0a\x02\xff\xfe", id="not UTF-8"),
        pytest.param(b"\xff\xff\xff", id="not protobuf"),
    ],
)
async def test_a_bad_image_name_never_reaches_the_upstream(
    edge: Edge, request_: api_pb2.ImageStatusRequest | bytes
) -> None:
    raw = request_ if isinstance(request_, bytes) else request_.SerializeToString()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await edge.channel.unary_unary("/runtime.v1.ImageService/ImageStatus")(raw)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "\n" not in (caught.value.details() or "")
