"""RemoveContainer: release all resources of a container and drop its record."""

from __future__ import annotations

from noderuntime.core import log
from noderuntime.core.ids import check_id
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.exits import settle
from noderuntime.lifecycle.containers.stop import halt
from noderuntime.lifecycle.containers.volumes import remove_volumes
from noderuntime.lifecycle.ledger.ledger import container_name
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts

_log = log.get(__name__)


async def remove_container(parts: Parts, container_id: str) -> None:
    """Remove a container, and kill it first if it runs (CRI RemoveContainer). No error if it is missing."""
    container = parts.ledger.containers.find(check_id(container_id, "container ID"))
    if container is not None and container.visible:
        await parts.work.finish(discard(parts, container), name=f"RemoveContainer {container.id}")


async def discard(parts: Parts, container: Container) -> None:
    """Release all resources of a container and drop its record. Each step is idempotent."""
    async with parts.work.lock(container.id):
        if parts.ledger.containers.find(container.id) is None:
            return
        await halt(parts, container, 0)
        await settle(parts, container)
        paths = parts.paths.container(container.id)
        await parts.images.release(container.id, paths.rootfs)
        await parts.host.remove_tree(paths.bundle)
        await remove_volumes(parts, container.id)
        parts.work.forget(container_name(container.sandbox_id, container.config.metadata))
        await parts.ledger.containers.drop(container)
    parts.events.publish(container.id, container.sandbox_id, api_pb2.CONTAINER_DELETED_EVENT)
    _log.info("container removed", container=container.id, sandbox=container.sandbox_id)
