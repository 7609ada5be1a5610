"""The route of every CRI call.

The calls are read from the schema. A call that is added there is passed through to the upstream until it
gets a route here. Calls that the schema does not contain are passed through as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from google.protobuf import message_factory
from google.protobuf.message import Message

from noderuntime.cri.v1 import api_pb2


class Route(Enum):
    """The side that answers a call."""

    NODE = "this daemon, for the whole node"
    HANDLER = "the side with the runtime handler in the request"
    SANDBOX = "the side with the sandbox in the request"
    CONTAINER = "the side with the container in the request"
    JOIN = "both sides, in one response"
    EVENTS = "both sides, merged as messages arrive"
    UPSTREAM = "the upstream runtime; this daemon on a node without one"


_ROUTES: Mapping[str, Route] = {
    **dict.fromkeys(("Version", "Status", "RuntimeConfig", "UpdateRuntimeConfig"), Route.NODE),
    **dict.fromkeys(("ListMetricDescriptors", "ListPodSandboxMetrics"), Route.NODE),
    "RunPodSandbox": Route.HANDLER,
    **dict.fromkeys(
        (
            "StopPodSandbox",
            "RemovePodSandbox",
            "PodSandboxStatus",
            "PodSandboxStats",
            "UpdatePodSandboxResources",
            "PortForward",
            "CreateContainer",
        ),
        Route.SANDBOX,
    ),
    **dict.fromkeys(
        (
            "StartContainer",
            "StopContainer",
            "RemoveContainer",
            "ContainerStatus",
            "ContainerStats",
            "UpdateContainerResources",
            "ReopenContainerLog",
            "ExecSync",
            "Exec",
            "Attach",
            "CheckpointContainer",
        ),
        Route.CONTAINER,
    ),
    **dict.fromkeys(
        (
            "ListPodSandbox",
            "ListContainers",
            "ListContainerStats",
            "ListPodSandboxStats",
            "StreamPodSandboxes",
            "StreamContainers",
            "StreamContainerStats",
            "StreamPodSandboxStats",
            "StreamPodSandboxMetrics",
        ),
        Route.JOIN,
    ),
    "GetContainerEvents": Route.EVENTS,
}


@dataclass(frozen=True, slots=True)
class Method:
    """One CRI call."""

    name: str
    path: str
    """The HTTP/2 path, such as ``/runtime.v1.RuntimeService/Version``."""
    route: Route
    request: type[Message]
    response: type[Message]
    streams: bool
    """Whether the call is server-streaming. No CRI call streams requests."""

    @property
    def id_field(self) -> str | None:
        """The request's field with the ID that decides the route."""
        return {Route.SANDBOX: "pod_sandbox_id", Route.CONTAINER: "container_id"}.get(self.route)


def methods() -> Iterator[Method]:
    """Yield all calls of both CRI services."""
    for service in api_pb2.DESCRIPTOR.services_by_name.values():
        for call in service.methods:
            yield Method(
                name=call.name,
                path=f"/{service.full_name}/{call.name}",
                route=_ROUTES.get(call.name, Route.UPSTREAM),
                request=message_factory.GetMessageClass(call.input_type),
                response=message_factory.GetMessageClass(call.output_type),
                streams=bool(call.server_streaming),
            )
