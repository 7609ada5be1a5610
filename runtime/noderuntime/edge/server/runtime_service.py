"""CRI RuntimeService for pods and containers: one call, one verb.

IDs in requests are full IDs of our objects (the router resolves prefixes) or, on a node without an
upstream, IDs of objects that do not exist.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from noderuntime.core.sessions import Offers
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.attach import attach_session
from noderuntime.lifecycle.containers.checkpoint import checkpoint_container
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.exec import exec_session
from noderuntime.lifecycle.containers.exec_sync import exec_sync
from noderuntime.lifecycle.containers.list import list_containers
from noderuntime.lifecycle.containers.remove import remove_container
from noderuntime.lifecycle.containers.reopen_log import reopen_container_log
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.stats import container_stats, list_container_stats
from noderuntime.lifecycle.containers.status import container_status
from noderuntime.lifecycle.containers.stop import stop_container
from noderuntime.lifecycle.containers.update import update_container_resources
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.container_events import container_events
from noderuntime.lifecycle.pods.list import list_pod_sandboxes
from noderuntime.lifecycle.pods.port_forward import port_forward_session
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.stats import list_pod_sandbox_stats, pod_sandbox_stats
from noderuntime.lifecycle.pods.status import pod_sandbox_status
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox
from noderuntime.lifecycle.pods.update import update_pod_sandbox_resources


class RuntimeService:
    """RuntimeService for pods of our handlers. Each method implements the CRI call of its name."""

    def __init__(self, parts: Parts, offers: Offers) -> None:
        self._parts = parts
        self._offers = offers

    async def RunPodSandbox(self, request: api_pb2.RunPodSandboxRequest) -> api_pb2.RunPodSandboxResponse:
        """Create a pod sandbox and its network."""
        made = await run_pod_sandbox(self._parts, request.config, request.runtime_handler)
        return api_pb2.RunPodSandboxResponse(pod_sandbox_id=made)

    async def StopPodSandbox(self, request: api_pb2.StopPodSandboxRequest) -> api_pb2.StopPodSandboxResponse:
        """Stop all containers of a pod and release its network."""
        await stop_pod_sandbox(self._parts, request.pod_sandbox_id)
        return api_pb2.StopPodSandboxResponse()

    async def RemovePodSandbox(
        self, request: api_pb2.RemovePodSandboxRequest
    ) -> api_pb2.RemovePodSandboxResponse:
        """Remove a pod sandbox and its containers."""
        await remove_pod_sandbox(self._parts, request.pod_sandbox_id)
        return api_pb2.RemovePodSandboxResponse()

    async def PodSandboxStatus(
        self, request: api_pb2.PodSandboxStatusRequest
    ) -> api_pb2.PodSandboxStatusResponse:
        """Return the status of a pod sandbox."""
        return pod_sandbox_status(self._parts, request.pod_sandbox_id, verbose=request.verbose)

    async def ListPodSandbox(self, request: api_pb2.ListPodSandboxRequest) -> api_pb2.ListPodSandboxResponse:
        """List pods from memory."""
        return api_pb2.ListPodSandboxResponse(items=list_pod_sandboxes(self._parts, request.filter))

    async def StreamPodSandboxes(
        self, request: api_pb2.StreamPodSandboxesRequest
    ) -> api_pb2.StreamPodSandboxesResponse:
        """List pods in one message; the dispatcher splits it."""
        return api_pb2.StreamPodSandboxesResponse(
            pod_sandboxes=list_pod_sandboxes(self._parts, request.filter)
        )

    async def CreateContainer(
        self, request: api_pb2.CreateContainerRequest
    ) -> api_pb2.CreateContainerResponse:
        """Prepare a container up to its first instruction."""
        made = await create_container(self._parts, request.pod_sandbox_id, request.config)
        return api_pb2.CreateContainerResponse(container_id=made)

    async def StartContainer(self, request: api_pb2.StartContainerRequest) -> api_pb2.StartContainerResponse:
        """Start a created container."""
        await start_container(self._parts, request.container_id)
        return api_pb2.StartContainerResponse()

    async def StopContainer(self, request: api_pb2.StopContainerRequest) -> api_pb2.StopContainerResponse:
        """Send the stop signal, and SIGKILL after the timeout (seconds)."""
        await stop_container(self._parts, request.container_id, request.timeout)
        return api_pb2.StopContainerResponse()

    async def RemoveContainer(
        self, request: api_pb2.RemoveContainerRequest
    ) -> api_pb2.RemoveContainerResponse:
        """Remove a container. Its log stays."""
        await remove_container(self._parts, request.container_id)
        return api_pb2.RemoveContainerResponse()

    async def ContainerStatus(
        self, request: api_pb2.ContainerStatusRequest
    ) -> api_pb2.ContainerStatusResponse:
        """Return the status of a container."""
        return await container_status(self._parts, request.container_id, verbose=request.verbose)

    async def ListContainers(self, request: api_pb2.ListContainersRequest) -> api_pb2.ListContainersResponse:
        """List containers from memory."""
        return api_pb2.ListContainersResponse(containers=list_containers(self._parts, request.filter))

    async def StreamContainers(
        self, request: api_pb2.StreamContainersRequest
    ) -> api_pb2.StreamContainersResponse:
        """List containers in one message; the dispatcher splits it."""
        return api_pb2.StreamContainersResponse(containers=list_containers(self._parts, request.filter))

    async def UpdateContainerResources(
        self, request: api_pb2.UpdateContainerResourcesRequest
    ) -> api_pb2.UpdateContainerResourcesResponse:
        """Set new resource limits of a container."""
        await update_container_resources(self._parts, request.container_id, request.linux)
        return api_pb2.UpdateContainerResourcesResponse()

    async def UpdatePodSandboxResources(
        self, request: api_pb2.UpdatePodSandboxResourcesRequest
    ) -> api_pb2.UpdatePodSandboxResourcesResponse:
        """Record the new resource limits of a pod."""
        await update_pod_sandbox_resources(
            self._parts, request.pod_sandbox_id, request.overhead, request.resources
        )
        return api_pb2.UpdatePodSandboxResourcesResponse()

    async def ReopenContainerLog(
        self, request: api_pb2.ReopenContainerLogRequest
    ) -> api_pb2.ReopenContainerLogResponse:
        """Reopen the log file of a container after a rotation."""
        await reopen_container_log(self._parts, request.container_id)
        return api_pb2.ReopenContainerLogResponse()

    async def ExecSync(self, request: api_pb2.ExecSyncRequest) -> api_pb2.ExecSyncResponse:
        """Run a command in a container and return its output. Timeout in seconds, 0 for none."""
        return await exec_sync(self._parts, request.container_id, request.cmd, request.timeout)

    async def Exec(self, request: api_pb2.ExecRequest) -> api_pb2.ExecResponse:
        """Return the URL of a streaming session for a command in a container."""
        return api_pb2.ExecResponse(url=self._offers.offer(exec_session(self._parts, request)))

    async def Attach(self, request: api_pb2.AttachRequest) -> api_pb2.AttachResponse:
        """Return the URL of a streaming session attached to a container."""
        return api_pb2.AttachResponse(url=self._offers.offer(attach_session(self._parts, request)))

    async def PortForward(self, request: api_pb2.PortForwardRequest) -> api_pb2.PortForwardResponse:
        """Return the URL of a streaming session for connections to a pod's ports."""
        return api_pb2.PortForwardResponse(url=self._offers.offer(port_forward_session(self._parts, request)))

    async def CheckpointContainer(
        self, request: api_pb2.CheckpointContainerRequest
    ) -> api_pb2.CheckpointContainerResponse:
        """Write a running container into an archive; timeout in seconds, 0 for none."""
        await checkpoint_container(self._parts, request.container_id, request.location, request.timeout)
        return api_pb2.CheckpointContainerResponse()

    async def ContainerStats(self, request: api_pb2.ContainerStatsRequest) -> api_pb2.ContainerStatsResponse:
        """Return the resource usage of a container."""
        return api_pb2.ContainerStatsResponse(stats=await container_stats(self._parts, request.container_id))

    async def ListContainerStats(
        self, request: api_pb2.ListContainerStatsRequest
    ) -> api_pb2.ListContainerStatsResponse:
        """Return the resource usage of running containers."""
        return api_pb2.ListContainerStatsResponse(
            stats=await list_container_stats(self._parts, request.filter)
        )

    async def StreamContainerStats(
        self, request: api_pb2.StreamContainerStatsRequest
    ) -> api_pb2.StreamContainerStatsResponse:
        """Return the resource usage of running containers in one message; the dispatcher splits it."""
        return api_pb2.StreamContainerStatsResponse(
            container_stats=await list_container_stats(self._parts, request.filter)
        )

    async def PodSandboxStats(
        self, request: api_pb2.PodSandboxStatsRequest
    ) -> api_pb2.PodSandboxStatsResponse:
        """Return the resource usage of a pod."""
        return api_pb2.PodSandboxStatsResponse(
            stats=await pod_sandbox_stats(self._parts, request.pod_sandbox_id)
        )

    async def ListPodSandboxStats(
        self, request: api_pb2.ListPodSandboxStatsRequest
    ) -> api_pb2.ListPodSandboxStatsResponse:
        """Return the resource usage of pods."""
        return api_pb2.ListPodSandboxStatsResponse(
            stats=await list_pod_sandbox_stats(self._parts, request.filter)
        )

    async def StreamPodSandboxStats(
        self, request: api_pb2.StreamPodSandboxStatsRequest
    ) -> api_pb2.StreamPodSandboxStatsResponse:
        """Return the resource usage of pods in one message; the dispatcher splits it."""
        return api_pb2.StreamPodSandboxStatsResponse(
            pod_sandbox_stats=await list_pod_sandbox_stats(self._parts, request.filter)
        )

    def events(self, _request: api_pb2.GetEventsRequest) -> AsyncGenerator[api_pb2.ContainerEventResponse]:
        """CRI GetContainerEvents: the events of our pods from now on."""
        return container_events(self._parts)
