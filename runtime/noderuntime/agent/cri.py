"""A CRI client: the few calls with which the agent and the switch look at a runtime."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.cri.v1.api_pb2_grpc import RuntimeServiceStub
from noderuntime.errors import DeadlineExceeded, ToolError, Unavailable

_QUICK = 10.0
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


class CriClient:
    """One connection to a runtime's socket. Calls raise Unavailable, DeadlineExceeded or ToolError."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = grpc.aio.insecure_channel(f"unix://{socket}", options=_OPTIONS)
        self._stub: Any = RuntimeServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated

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

    async def run(self, config: cri.PodSandboxConfig, handler: str, *, timeout: float) -> str:
        """Run a sandbox and return its ID."""
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return str((await self._call("RunPodSandbox", request, timeout)).pod_sandbox_id)

    async def state(self, sandbox_id: str) -> int:
        """Return the state of a sandbox."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        return int((await self._call("PodSandboxStatus", request)).status.state)

    async def remove(self, sandbox_id: str, *, timeout: float = 60) -> None:
        """Stop and remove a sandbox; one that is gone is no error."""
        await self._call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id), timeout)
        await self._call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id), timeout)

    async def _call(self, method: str, request: Any, timeout: float = _QUICK) -> Any:
        try:
            return await getattr(self._stub, method)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            words = " ".join((error.details() or "").split())[:300]
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise Unavailable(f"{self._socket}: {words}") from error
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineExceeded(f"{self._socket}: {method} took longer than {timeout:g} s") from error
            raise ToolError(str(self._socket), method, error.code().value[0], words) from error
