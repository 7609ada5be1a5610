"""A CRI client: the calls that the agent, the switch and the command line make to a runtime."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from noderuntime.core.codes import error_of
from noderuntime.core.errors import DeadlineExceeded, NoderuntimeError, Unavailable, Unimplemented
from noderuntime.cri.images import images_pb2
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.cri.v1.api_pb2_grpc import ImageServiceStub, RuntimeServiceStub

_DEFAULT_TIMEOUT = 10.0
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),  # merged lists have no size limit; the server is trusted (root)
)
_MESSAGE_LIMIT = 300

M = TypeVar("M")


class CriClient:
    """A connection to a runtime's socket. An async context manager.

    A call that fails raises the NoderuntimeError of its gRPC status, with the runtime's
    message as one line. Unavailable names the socket.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = grpc.aio.insecure_channel(f"unix://{socket}", options=_OPTIONS)
        self._runtime: Any = RuntimeServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated
        self._images: Any = ImageServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def version(self) -> cri.VersionResponse:
        """Return the runtime's name and versions (RuntimeService.Version)."""
        answer: cri.VersionResponse = await self._call("Version", cri.VersionRequest(version="v1"))
        return answer

    async def status(self) -> cri.StatusResponse:
        """Return the runtime's conditions and handlers (RuntimeService.Status, verbose)."""
        answer: cri.StatusResponse = await self._call("Status", cri.StatusRequest(verbose=True))
        return answer

    async def sandboxes(self, labels: dict[str, str] | None = None) -> list[cri.PodSandbox]:
        """Return the sandboxes that have all the given labels (RuntimeService.ListPodSandbox)."""
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels or {}))
        return list((await self._call("ListPodSandbox", request)).items)

    async def sandbox(self, sandbox_id: str) -> cri.PodSandboxStatusResponse:
        """Return the status of a sandbox (RuntimeService.PodSandboxStatus, verbose)."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        answer: cri.PodSandboxStatusResponse = await self._call("PodSandboxStatus", request)
        return answer

    async def containers(self) -> list[cri.Container]:
        """Return the containers in every state (RuntimeService.ListContainers)."""
        return list((await self._call("ListContainers", cri.ListContainersRequest())).containers)

    async def container(self, container_id: str) -> cri.ContainerStatusResponse:
        """Return the status of a container (RuntimeService.ContainerStatus, verbose)."""
        request = cri.ContainerStatusRequest(container_id=container_id, verbose=True)
        answer: cri.ContainerStatusResponse = await self._call("ContainerStatus", request)
        return answer

    async def images(self) -> list[cri.Image]:
        """Return the images (ImageService.ListImages)."""
        return list((await self._call("ListImages", cri.ListImagesRequest())).images)

    async def image(self, reference: str) -> cri.ImageStatusResponse:
        """Return an image by ID or reference; ``image`` is unset if none exists (ImageStatus, verbose)."""
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference), verbose=True)
        answer: cri.ImageStatusResponse = await self._call("ImageStatus", request)
        return answer

    async def image_filesystems(self) -> cri.ImageFsInfoResponse:
        """Return the disk usage of images and writable layers (ImageService.ImageFsInfo)."""
        answer: cri.ImageFsInfoResponse = await self._call("ImageFsInfo", cri.ImageFsInfoRequest())
        return answer

    def pull(self, image: str) -> AsyncGenerator[images_pb2.PullProgress]:
        """Pull into the native image store. The last message has the image's ID (noderuntime.images.v1)."""
        request, parse = images_pb2.PullRequest(image=image), images_pb2.PullProgress.FromString
        return self._stream("Pull", request, parse)

    async def load(self, path: Path) -> list[str]:
        """Load an archive on the daemon's node and return the images' IDs (noderuntime.images.v1)."""
        request, parse = images_pb2.LoadRequest(path=str(path)), images_pb2.LoadResponse.FromString
        async with aclosing(self._stream("Load", request, parse)) as answers:
            return [image async for answer in answers for image in answer.image_ids]

    async def run(self, config: cri.PodSandboxConfig, handler: str, *, timeout: float) -> str:
        """Run a sandbox and return its ID (RuntimeService.RunPodSandbox). ``timeout`` is in seconds."""
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return str((await self._call("RunPodSandbox", request, timeout)).pod_sandbox_id)

    async def remove(self, sandbox_id: str, *, timeout: float = 60) -> None:
        """Stop and remove a sandbox, if it exists. ``timeout`` is in seconds, for each of the two calls."""
        await self._call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id), timeout)
        await self._call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id), timeout)

    async def _call(self, method: str, request: Any, timeout: float = _DEFAULT_TIMEOUT) -> Any:
        stub = self._runtime if hasattr(self._runtime, method) else self._images
        try:
            return await getattr(stub, method)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineExceeded(f"{self._socket}: {method} took longer than {timeout:g} s") from error
            raise self._to_error(method, error) from error

    async def _stream(self, method: str, request: Message, parse: Callable[[bytes], M]) -> AsyncGenerator[M]:
        send: Any = self._channel.unary_stream(
            f"/noderuntime.images.v1.Images/{method}", lambda message: message.SerializeToString(), parse
        )
        answers = send(request)
        try:
            async for answer in answers:
                yield answer
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise Unimplemented(f"{self._socket}: the daemon has no native image store") from error
            raise self._to_error(method, error) from error
        finally:
            answers.cancel()

    def _to_error(self, method: str, error: grpc.aio.AioRpcError) -> NoderuntimeError:
        message = " ".join((error.details() or "").split())
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return Unavailable(f"{self._socket}: {_unavailable(message)[:_MESSAGE_LIMIT]}")
        return error_of(error.code())(message[:_MESSAGE_LIMIT] or f"{method} failed: {error.code().name}")


def handler_versions(status: cri.StatusResponse) -> Mapping[str, str]:
    """Return the versions that the binaries of noderuntime's handlers report, from the verbose ``info``."""
    return _handlers_info(status, "handlers")


def handler_errors(status: cri.StatusResponse) -> Mapping[str, str]:
    """Return the errors of noderuntime's handlers whose binaries report none, from the verbose ``info``."""
    return _handlers_info(status, "errors")


def _handlers_info(status: cri.StatusResponse, key: str) -> Mapping[str, str]:
    try:
        found = json.loads(status.info["noderuntime"])[key]
        return {str(name): str(text) for name, text in found.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _unavailable(message: str) -> str:
    """Reduce gRPC's message about a failed connection to the kernel's error. Keep a runtime's message."""
    if not message.startswith("failed to connect"):
        return message
    return f"connection failed: {message.rpartition('error: ')[2]}"
