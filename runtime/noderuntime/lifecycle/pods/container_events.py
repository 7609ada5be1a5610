"""GetContainerEvents: each event with the state of its pod at the time of the event."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.status import describe as describe_container
from noderuntime.lifecycle.events import Event
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.status import describe


async def container_events(parts: Parts) -> AsyncGenerator[api_pb2.ContainerEventResponse]:
    """Yield the events of sandboxes and containers from now on (CRI GetContainerEvents)."""
    async with aclosing(parts.events.listen(lambda event: _response(parts, event))) as responses:
        async for response in responses:
            yield response


def _response(parts: Parts, event: Event) -> api_pb2.ContainerEventResponse:
    response = api_pb2.ContainerEventResponse(
        container_id=event.container_id,
        container_event_type=event.kind,
        created_at=event.created_at,
        containers_statuses=[
            describe_container(c) for c in parts.ledger.containers.of(event.sandbox_id) if c.visible
        ],
    )
    sandbox = parts.ledger.sandboxes.find(event.sandbox_id)
    status = event.last if sandbox is None else describe(sandbox)
    if status is not None:
        response.pod_sandbox_status.CopyFrom(status)
    return response
