"""Whose is it? Decided from memory, by ID or by handler."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.router import Router
from noderuntime.edge.router.routes import Route, methods
from noderuntime.edge.router.upstream import Reply

METHODS = {method.name: method for method in methods()}


@dataclass
class Record:
    id: str


class Table:
    def __init__(self, *ids: str) -> None:
        self._ids = ids

    def find(self, identifier: str) -> Record | None:
        matches = [known for known in self._ids if known.startswith(identifier)]
        return Record(matches[0]) if len(matches) == 1 else None


class FakeUpstream:
    """Knows some handlers; counts how often it was asked."""

    def __init__(self, *handlers: str) -> None:
        self._handlers = handlers
        self.asked = 0

    def unary(self, path: str, request: bytes, *, timeout: float) -> FakeUpstream:
        assert path == "/runtime.v1.RuntimeService/Status"
        self.asked += 1
        return self

    async def reply(self) -> Reply:
        known = [api_pb2.RuntimeHandler(name=name) for name in self._handlers]
        return Reply(api_pb2.StatusResponse(runtime_handlers=known).SerializeToString(), (), ())


def _router(upstream: FakeUpstream | None) -> Router:
    return Router(Table("aa11"), Table("cc11", "cc22"), ("runc", "gvisor"), upstream)  # type: ignore[arg-type]


async def test_a_sandbox_of_ours_is_ours_by_its_prefix_which_becomes_the_id() -> None:
    request = api_pb2.StopPodSandboxRequest(pod_sandbox_id="aa")
    assert await _router(FakeUpstream()).is_ours(METHODS["StopPodSandbox"], request)
    assert request.pod_sandbox_id == "aa11"


@pytest.mark.parametrize("identifier", ["cc", "dd"], ids=["two fit", "none fits"])
async def test_other_containers_are_the_upstreams(identifier: str) -> None:
    request = api_pb2.ContainerStatusRequest(container_id=identifier)
    assert not await _router(FakeUpstream()).is_ours(METHODS["ContainerStatus"], request)
    assert request.container_id == identifier


async def test_without_an_upstream_unknown_ids_are_ours_to_answer() -> None:
    request = api_pb2.ContainerStatusRequest(container_id="dd")
    assert await _router(None).is_ours(METHODS["ContainerStatus"], request)


async def test_a_container_is_created_where_its_sandbox_is() -> None:
    request = api_pb2.CreateContainerRequest(pod_sandbox_id="aa11")
    assert await _router(FakeUpstream()).is_ours(METHODS["CreateContainer"], request)


async def test_our_handlers_win_over_the_upstreams_without_asking() -> None:
    upstream = FakeUpstream("runc")
    request = api_pb2.RunPodSandboxRequest(runtime_handler="runc")
    assert await _router(upstream).is_ours(METHODS["RunPodSandbox"], request)
    assert upstream.asked == 0


@pytest.mark.parametrize("handler", ["", "kata"])
async def test_the_default_and_the_upstreams_handlers_are_passed_on(handler: str) -> None:
    request = api_pb2.RunPodSandboxRequest(runtime_handler=handler)
    assert not await _router(FakeUpstream("", "kata")).is_ours(METHODS["RunPodSandbox"], request)


async def test_an_upstream_that_names_no_handlers_judges_itself() -> None:
    request = api_pb2.RunPodSandboxRequest(runtime_handler="kata")
    assert not await _router(FakeUpstream()).is_ours(METHODS["RunPodSandbox"], request)


async def test_a_handler_that_nobody_has_is_refused_with_all_there_are() -> None:
    request = api_pb2.RunPodSandboxRequest(runtime_handler="kata\n" + "x" * 10_000)
    with pytest.raises(InvalidArgument) as caught:
        await _router(FakeUpstream("", "crun")).is_ours(METHODS["RunPodSandbox"], request)
    assert str(caught.value).endswith("there are: crun, gvisor, runc")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


async def test_without_an_upstream_the_first_handler_is_the_default() -> None:
    request = api_pb2.RunPodSandboxRequest()
    assert await _router(None).is_ours(METHODS["RunPodSandbox"], request)
    assert request.runtime_handler == "runc"


async def test_handlers_that_come_and_go_are_seen_at_once() -> None:
    handlers = {"runc": 1}
    router = Router(Table(), Table(), handlers, FakeUpstream("", "crun"))  # type: ignore[arg-type]
    request = api_pb2.RunPodSandboxRequest(runtime_handler="crun")
    assert not await router.is_ours(METHODS["RunPodSandbox"], request)
    handlers["crun"] = 2
    assert await router.is_ours(METHODS["RunPodSandbox"], request)


async def test_without_an_upstream_only_ours_are_named() -> None:
    with pytest.raises(InvalidArgument, match=r"there are: gvisor, runc$"):
        await _router(None).is_ours(
            METHODS["RunPodSandbox"], api_pb2.RunPodSandboxRequest(runtime_handler="crun")
        )


def test_what_names_an_object_is_routed_by_it() -> None:
    for method in METHODS.values():
        fields = method.request.DESCRIPTOR.fields_by_name
        named = next((name for name in ("pod_sandbox_id", "container_id") if name in fields), None)
        assert method.id_field == named, method.name


def test_lists_of_pods_and_containers_join_both_sides() -> None:
    for method in METHODS.values():
        is_list = method.name.startswith(("List", "Stream")) and not method.name.endswith("Images")
        is_list = is_list and method.name not in ("ListMetricDescriptors", "ListPodSandboxMetrics")
        assert (method.route is Route.JOIN) == is_list, method.name


def test_images_are_the_upstreams() -> None:
    images = [method for method in METHODS.values() if "ImageService" in method.path]
    assert len(images) == 6
    assert {method.route for method in images} == {Route.UPSTREAM}
