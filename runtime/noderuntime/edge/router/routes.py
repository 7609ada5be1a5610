"""Every CRI call, and where it goes.

The calls are read from the schema, so a call that is added there is passed
through to the upstream until somebody gives it a route here. Calls that the
schema does not know are passed through as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from google.protobuf import message_factory
from google.protobuf.message import Message

from noderuntime.cri.v1 import api_pb2


class Route(Enum):
    """Who answers a call."""

    NODE = "this daemon, for the whole node"
    HANDLER = "whoever offers the runtime handler that the request names"
    SANDBOX = "whoever has the sandbox that the request names"
    CONTAINER = "whoever has the container that the request names"
    JOIN = "both sides, one answer behind the other"
    EVENTS = "both sides, as it comes"
    UPSTREAM = "the runtime that the node already had; this daemon where there is none"


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
    """As HTTP/2 carries it: ``/runtime.v1.RuntimeService/Version``."""
    route: Route
    request: type[Message]
    response: type[Message]
    streams: bool
    """Whether the server answers with a stream; no CRI call has a stream of requests."""

    @property
    def id_field(self) -> str | None:
        """The request's field that names the object which decides the route."""
        return {Route.SANDBOX: "pod_sandbox_id", Route.CONTAINER: "container_id"}.get(self.route)


def methods() -> Iterator[Method]:
    """List all calls of both CRI services."""
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
