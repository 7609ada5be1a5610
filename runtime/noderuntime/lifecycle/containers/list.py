"""ListContainers, from memory."""

from __future__ import annotations

from collections.abc import Iterable

from noderuntime.core.labels import selects
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.state import state_of
from noderuntime.lifecycle.containers.status import image_spec
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts


def list_containers(parts: Parts, wanted: api_pb2.ContainerFilter) -> list[api_pb2.Container]:
    """List the containers that pass every filter that is set (CRI ListContainers).

    IDs in the filter may be unique prefixes. InvalidArgument if one is ambiguous.
    """
    return [_summary(container) for container in select_containers(parts, wanted)]


def select_containers(parts: Parts, wanted: api_pb2.ContainerFilter) -> list[Container]:
    """Find the containers that pass every filter that is set."""
    return [container for container in _candidates(parts, wanted) if _passes(container, wanted)]


def _candidates(parts: Parts, wanted: api_pb2.ContainerFilter) -> Iterable[Container]:
    containers: Iterable[Container] = parts.ledger.containers
    if wanted.id:
        found = parts.ledger.containers.find(wanted.id)
        containers = [] if found is None else [found]
    if wanted.pod_sandbox_id:
        sandbox = parts.ledger.sandboxes.find(wanted.pod_sandbox_id)
        owner = "" if sandbox is None else sandbox.id
        containers = [container for container in containers if container.sandbox_id == owner]
    return containers


def _passes(container: Container, wanted: api_pb2.ContainerFilter) -> bool:
    if not container.visible:
        return False
    if wanted.HasField("state") and wanted.state.state != state_of(container):
        return False
    return selects(wanted.label_selector, container.config.labels)


def _summary(container: Container) -> api_pb2.Container:
    return api_pb2.Container(
        id=container.id,
        pod_sandbox_id=container.sandbox_id,
        metadata=container.config.metadata,
        image=image_spec(container),
        image_ref=container.image_ref,
        image_id=container.image_id,
        state=state_of(container),
        created_at=container.created_at,
        labels=container.config.labels,
        annotations=container.config.annotations,
    )
