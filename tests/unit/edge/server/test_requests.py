"""Requests that are refused at the edge, before routing."""

from __future__ import annotations

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.routes import Method, methods
from noderuntime.edge.server import requests

METHODS = {method.name: method for method in methods()}


def _refused(name: str, request: bytes) -> str:
    with pytest.raises(InvalidArgument) as caught:
        requests.parse(METHODS[name], request)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize("hostile", ["../../etc", "a/b", "", "-rf", ".", "x" * 129, "a\nb", "é"])
@pytest.mark.parametrize("method", [m for m in METHODS.values() if m.id_field], ids=lambda m: m.name)
def test_id_that_is_a_path_or_option_is_refused(method: Method, hostile: str) -> None:
    field = method.id_field
    assert field is not None
    assert field in _refused(method.name, method.request(**{field: hostile}).SerializeToString())


@pytest.mark.parametrize(
    "name", ["ListPodSandbox", "ListPodSandboxStats", "StreamPodSandboxes", "StreamPodSandboxStats"]
)
def test_invalid_id_in_a_filter_is_refused(name: str) -> None:
    request = METHODS[name].request(filter={"id": "../x"})
    assert "filter.id" in _refused(name, request.SerializeToString())


@pytest.mark.parametrize(
    "name", ["ListContainers", "ListContainerStats", "StreamContainers", "StreamContainerStats"]
)
def test_invalid_sandbox_id_in_a_filter_is_refused(name: str) -> None:
    request = METHODS[name].request(filter={"pod_sandbox_id": "../x"})
    assert "filter.pod_sandbox_id" in _refused(name, request.SerializeToString())


def test_list_without_filter_is_accepted() -> None:
    assert requests.parse(METHODS["ListContainers"], b"") == api_pb2.ListContainersRequest()


@pytest.mark.parametrize("field", ["name", "namespace", "uid"])
def test_pod_name_beyond_kubernetes_limit_is_refused(field: str) -> None:
    metadata = {field: "n" * 10_000}
    request = api_pb2.RunPodSandboxRequest(
        config=api_pb2.PodSandboxConfig(metadata=api_pb2.PodSandboxMetadata(**metadata))
    )
    words = _refused("RunPodSandbox", request.SerializeToString())
    assert words == f"config.metadata.{field} has 10000 bytes, at most 253 are allowed"


def test_length_is_counted_in_bytes() -> None:
    request = api_pb2.RunPodSandboxRequest(config=api_pb2.PodSandboxConfig(hostname="é" * 33))
    assert "66 bytes" in _refused("RunPodSandbox", request.SerializeToString())


@pytest.mark.parametrize("name", ["ImageStatus", "PullImage", "RemoveImage"])
def test_overlong_image_name_is_refused(name: str) -> None:
    request = METHODS[name].request(image={"image": "i" * 10_000})
    assert "image.image" in _refused(name, request.SerializeToString())


def test_overlong_image_name_of_a_container_is_refused() -> None:
    request = api_pb2.CreateContainerRequest(
        pod_sandbox_id="a",
        config=api_pb2.ContainerConfig(image=api_pb2.ImageSpec(image="i" * 10_000)),
    )
    assert "config.image.image" in _refused("CreateContainer", request.SerializeToString())


@pytest.mark.parametrize("raw", [b"\x0a\x04\x0a\x02\xff\xfe", b"\x0a\x7f", b"\xff" * 20])
def test_undecodable_request_is_invalid_argument(raw: bytes) -> None:
    assert "ImageStatus" in _refused("ImageStatus", raw)


def test_only_requests_with_limits_are_checked() -> None:
    unlooked = {name for name, method in METHODS.items() if not requests.wants_check(method)}
    assert {"ImageFsInfo", "Version", "StreamImages"} <= unlooked
    assert not {"PullImage", "StopContainer", "ListContainers"} & unlooked
