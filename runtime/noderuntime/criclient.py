"""A CRI client: the calls with which agent, switch and command line look at a runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
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

_QUICK = 10.0
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),  # a list of both sides may have any size, and comes from root
)
_WORDS_LIMIT = 300

M = TypeVar("M")


class CriClient:
    """One connection to a runtime's socket; a context manager.

    A call raises the NoderuntimeError that the status of its answer stands for, with the
    runtime's words as one line; Unavailable names the socket.
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
        """Return names and versions (RuntimeService.Version)."""
        answer: cri.VersionResponse = await self._call("Version", cri.VersionRequest(version="v1"))
        return answer

    async def status(self) -> cri.StatusResponse:
        """Return conditions and handlers (RuntimeService.Status, verbose)."""
        answer: cri.StatusResponse = await self._call("Status", cri.StatusRequest(verbose=True))
        return answer

    async def sandboxes(self, labels: dict[str, str] | None = None) -> list[cri.PodSandbox]:
        """List sandboxes, those with all these labels if given."""
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels or {}))
        return list((await self._call("ListPodSandbox", request)).items)

    async def sandbox(self, sandbox_id: str) -> cri.PodSandboxStatusResponse:
        """Return the status of a sandbox (RuntimeService.PodSandboxStatus, verbose)."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        answer: cri.PodSandboxStatusResponse = await self._call("PodSandboxStatus", request)
        return answer

    async def containers(self) -> list[cri.Container]:
        """List containers in every state."""
        return list((await self._call("ListContainers", cri.ListContainersRequest())).containers)

    async def container(self, container_id: str) -> cri.ContainerStatusResponse:
        """Return the status of a container (RuntimeService.ContainerStatus, verbose)."""
        request = cri.ContainerStatusRequest(container_id=container_id, verbose=True)
        answer: cri.ContainerStatusResponse = await self._call("ContainerStatus", request)
        return answer

    async def images(self) -> list[cri.Image]:
        """List images."""
        return list((await self._call("ListImages", cri.ListImagesRequest())).images)

    async def image(self, reference: str) -> cri.ImageStatusResponse:
        """Return an image by ID or reference, none in it if there is none (ImageStatus, verbose)."""
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference), verbose=True)
        answer: cri.ImageStatusResponse = await self._call("ImageStatus", request)
        return answer

    async def image_filesystems(self) -> cri.ImageFsInfoResponse:
        """Return what images and writable layers use (ImageService.ImageFsInfo)."""
        answer: cri.ImageFsInfoResponse = await self._call("ImageFsInfo", cri.ImageFsInfoRequest())
        return answer

    async def pull(self, image: str) -> AsyncIterator[images_pb2.PullProgress]:
        """Pull into a store of our own; the last message has the image's ID (noderuntime.images.v1)."""
        request, parse = images_pb2.PullRequest(image=image), images_pb2.PullProgress.FromString
        async for told in self._stream("Pull", request, parse):
            yield told

    async def load(self, path: Path) -> list[str]:
        """Load an archive that lies on the daemon's node; return the images' IDs (noderuntime.images.v1)."""
        request, parse = images_pb2.LoadRequest(path=str(path)), images_pb2.LoadResponse.FromString
        return [one async for told in self._stream("Load", request, parse) for one in told.image_ids]

    async def run(self, config: cri.PodSandboxConfig, handler: str, *, timeout: float) -> str:
        """Run a sandbox and return its ID."""
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return str((await self._call("RunPodSandbox", request, timeout)).pod_sandbox_id)

    async def remove(self, sandbox_id: str, *, timeout: float = 60) -> None:
        """Stop and remove a sandbox; one that is gone is no error."""
        await self._call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id), timeout)
        await self._call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id), timeout)

    async def _call(self, method: str, request: Any, timeout: float = _QUICK) -> Any:
        stub = self._runtime if hasattr(self._runtime, method) else self._images
        try:
            return await getattr(stub, method)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineExceeded(f"{self._socket}: {method} took longer than {timeout:g} s") from error
            raise self._translated(method, error) from error

    async def _stream(self, method: str, request: Message, parse: Callable[[bytes], M]) -> AsyncIterator[M]:
        send: Any = self._channel.unary_stream(
            f"/noderuntime.images.v1.Images/{method}", lambda message: message.SerializeToString(), parse
        )
        try:
            async for answer in send(request):
                yield answer
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise Unimplemented(f"{self._socket}: the daemon has no image store of its own") from error
            raise self._translated(method, error) from error

    def _translated(self, method: str, error: grpc.aio.AioRpcError) -> NoderuntimeError:
        words = " ".join((error.details() or "").split())[:_WORDS_LIMIT]
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return Unavailable(f"{self._socket}: {_unavailable(words)}")
        return error_of(error.code())(words or f"{method} failed: {error.code().name}")


def _unavailable(words: str) -> str:
    """Cut gRPC's account of a connection that failed to the kernel's word; leave the runtime's own words."""
    if not words.startswith("failed to connect"):
        return words
    return f"nobody answers: {words.rpartition('error: ')[2]}"
