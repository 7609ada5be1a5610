"""Routing by ID or by handler, from memory."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.router import Router
from noderuntime.edge.router.routes import Method, Route, methods
from noderuntime.edge.router.upstream import Reply, UpstreamStatus

METHODS = {method.name: method for method in methods()}


@dataclass
class Record:
    id: str


class Table:
    def __init__(self, *ids: str) -> None:
        self._ids = ids

    def find(self, identifier: str) -> Record | None:
        matches = [known for known in self._ids if known.startswith(identifier)]
        if len(matches) > 1:
            raise InvalidArgument(f"{identifier} is ambiguous")
        return Record(matches[0]) if matches else None


class FakeUpstream:
    """Knows some handlers; counts how often it was asked. ``found``: its answer about an object's status."""

    def __init__(self, *handlers: str, found: grpc.StatusCode = grpc.StatusCode.NOT_FOUND) -> None:
        self._handlers = handlers
        self._found = found
        self.asked = 0
        self._path = ""

    def unary(self, path: str, request: bytes, *, timeout: float) -> FakeUpstream:
        self.asked += 1
        self._path = path.rpartition("/")[2]
        return self

    async def reply(self) -> Reply:
        if self._path == "Status":
            known = [api_pb2.RuntimeHandler(name=name) for name in self._handlers]
            return Reply(api_pb2.StatusResponse(runtime_handlers=known).SerializeToString(), (), ())
        assert self._path in ("PodSandboxStatus", "ContainerStatus")
        if self._found is not grpc.StatusCode.OK:
            raise UpstreamStatus(self._found, "its words")
        return Reply(b"", (), ())


def _router(upstream: FakeUpstream | None) -> Router:
    return Router(Table("aa11"), Table("cc11", "cc22"), ("runc", "gvisor"), upstream)  # type: ignore[arg-type]


async def test_a_prefix_of_our_sandbox_is_completed() -> None:
    request = api_pb2.StopPodSandboxRequest(pod_sandbox_id="aa")
    assert await _router(FakeUpstream()).is_ours(METHODS["StopPodSandbox"], request)
    assert request.pod_sandbox_id == "aa11"


async def test_other_containers_are_routed_to_the_upstream() -> None:
    request = api_pb2.ContainerStatusRequest(container_id="dd")
    upstream = FakeUpstream()
    assert not await _router(upstream).is_ours(METHODS["ContainerStatus"], request)
    assert (request.container_id, upstream.asked) == ("dd", 0)


BY_ID = [method for method in METHODS.values() if method.id_field]


@pytest.mark.parametrize("alone", [False, True], ids=["delegate", "alone"])
@pytest.mark.parametrize("method", BY_ID, ids=[method.name for method in BY_ID])
async def test_ambiguous_prefix_is_refused_on_every_verb(method: Method, alone: bool) -> None:
    router = Router(
        Table("aa11", "aa22"), Table("aa33", "aa44"), ("runc",), None if alone else FakeUpstream()
    )  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="aa is ambiguous"):
        await router.is_ours(method, method.request(**{str(method.id_field): "aa"}))


@pytest.mark.parametrize("method", BY_ID, ids=[method.name for method in BY_ID])
@pytest.mark.parametrize("found", [grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN])
async def test_prefix_of_both_sides_is_refused_on_every_verb(method: Method, found: grpc.StatusCode) -> None:
    """containerd answers UNKNOWN for a prefix of several IDs."""
    router = _router(FakeUpstream(found=found))
    prefix = "aa" if method.route is Route.SANDBOX else "cc1"
    with pytest.raises(InvalidArgument, match=f"{prefix} is ambiguous: the upstream has such an ID too"):
        await router.is_ours(method, method.request(**{str(method.id_field): prefix}))


async def test_prefix_is_not_resolved_while_the_upstream_is_away() -> None:
    upstream = FakeUpstream(found=grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(UpstreamStatus):
        await _router(upstream).is_ours(
            METHODS["StopContainer"], api_pb2.StopContainerRequest(container_id="cc1")
        )
    upstream = FakeUpstream(found=grpc.StatusCode.UNAVAILABLE)
    full = api_pb2.StopContainerRequest(container_id="cc11")
    assert await _router(upstream).is_ours(METHODS["StopContainer"], full)
    assert upstream.asked == 0, "a full ID needs no upstream"


async def test_without_an_upstream_unknown_ids_are_ours() -> None:
    request = api_pb2.ContainerStatusRequest(container_id="dd")
    assert await _router(None).is_ours(METHODS["ContainerStatus"], request)


async def test_create_container_is_routed_by_its_sandbox() -> None:
    request = api_pb2.CreateContainerRequest(pod_sandbox_id="aa11")
    assert await _router(FakeUpstream()).is_ours(METHODS["CreateContainer"], request)


async def test_our_handlers_take_precedence_without_a_call() -> None:
    upstream = FakeUpstream("runc")
    request = api_pb2.RunPodSandboxRequest(runtime_handler="runc")
    assert await _router(upstream).is_ours(METHODS["RunPodSandbox"], request)
    assert upstream.asked == 0


@pytest.mark.parametrize("handler", ["", "kata"])
async def test_other_handlers_are_routed_to_the_upstream(handler: str) -> None:
    request = api_pb2.RunPodSandboxRequest(runtime_handler=handler)
    assert not await _router(FakeUpstream("", "kata")).is_ours(METHODS["RunPodSandbox"], request)


async def test_an_upstream_without_a_handler_list_decides() -> None:
    request = api_pb2.RunPodSandboxRequest(runtime_handler="kata")
    assert not await _router(FakeUpstream()).is_ours(METHODS["RunPodSandbox"], request)


async def test_an_unknown_handler_is_rejected_with_the_known_ones() -> None:
    request = api_pb2.RunPodSandboxRequest(runtime_handler="kata\n" + "x" * 10_000)
    with pytest.raises(InvalidArgument) as caught:
        await _router(FakeUpstream("", "crun")).is_ours(METHODS["RunPodSandbox"], request)
    assert str(caught.value).endswith("(known: crun, gvisor, runc)")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


async def test_without_an_upstream_the_first_handler_is_the_default() -> None:
    request = api_pb2.RunPodSandboxRequest()
    assert await _router(None).is_ours(METHODS["RunPodSandbox"], request)
    assert request.runtime_handler == "runc"


async def test_changed_handlers_apply_at_once() -> None:
    handlers = {"runc": 1}
    router = Router(Table(), Table(), handlers, FakeUpstream("", "crun"))  # type: ignore[arg-type]
    request = api_pb2.RunPodSandboxRequest(runtime_handler="crun")
    assert not await router.is_ours(METHODS["RunPodSandbox"], request)
    handlers["crun"] = 2
    assert await router.is_ours(METHODS["RunPodSandbox"], request)


async def test_without_an_upstream_the_error_names_our_handlers() -> None:
    with pytest.raises(InvalidArgument, match=r"\(known: gvisor, runc\)$"):
        await _router(None).is_ours(
            METHODS["RunPodSandbox"], api_pb2.RunPodSandboxRequest(runtime_handler="crun")
        )


def test_calls_with_an_id_are_routed_by_it() -> None:
    for method in METHODS.values():
        fields = method.request.DESCRIPTOR.fields_by_name
        named = next((name for name in ("pod_sandbox_id", "container_id") if name in fields), None)
        assert method.id_field == named, method.name


def test_lists_join_both_sides() -> None:
    for method in METHODS.values():
        is_list = method.name.startswith(("List", "Stream")) and not method.name.endswith("Images")
        is_list = is_list and method.name not in ("ListMetricDescriptors", "ListPodSandboxMetrics")
        assert (method.route is Route.JOIN) == is_list, method.name


def test_image_calls_are_routed_to_the_upstream() -> None:
    images = [method for method in METHODS.values() if "ImageService" in method.path]
    assert len(images) == 6
    assert {method.route for method in images} == {Route.UPSTREAM}
