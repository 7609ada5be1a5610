"""UpdateContainerResources: set new limits of a created or running container."""

from __future__ import annotations

from noderuntime.core.errors import FailedPrecondition
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.spec.resources import oci_resources


async def update_container_resources(
    parts: Parts, container_id: str, resources: api_pb2.LinuxContainerResources
) -> None:
    """Set limits (CRI UpdateContainerResources). Fields that are 0 or empty keep their old limits.

    FailedPrecondition if the container has ended. After an error the record has the old limits.
    """
    container = parts.ledger.containers.get(container_id)
    await parts.work.finish(
        _update(parts, container, resources), name=f"UpdateContainerResources {container.id}"
    )


async def _update(parts: Parts, container: Container, resources: api_pb2.LinuxContainerResources) -> None:
    async with parts.work.lock(container.id):
        if not container.live:
            raise FailedPrecondition(f"container {container.id} has ended")
        await _apply(parts, container, merge(container.resources, resources))


async def finish_update(parts: Parts, container: Container) -> None:
    """Apply the limits of an update that the end of an earlier daemon interrupted."""
    async with parts.work.lock(container.id):
        if container.live and container.updating.ByteSize():
            resources = api_pb2.LinuxContainerResources()
            resources.CopyFrom(container.updating)
            await _apply(parts, container, resources)


async def _apply(parts: Parts, container: Container, resources: api_pb2.LinuxContainerResources) -> None:
    """Record the limits as an intent, set them, and record the outcome."""
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    oci = oci_resources(resources, parts.facts)
    if "memory" in oci:  # refuse a limit below the current usage: the kernel would kill processes
        oci["memory"]["checkBeforeUpdate"] = True
    container.updating.CopyFrom(resources)
    try:
        await parts.ledger.containers.save(container)
        await parts.executor(sandbox.handler).update(container.id, sandbox.id, oci)
    except Exception:
        await _close(parts, container)
        raise
    container.resources.CopyFrom(resources)
    await _close(parts, container)


async def _close(parts: Parts, container: Container) -> None:
    container.updating.Clear()
    await parts.ledger.containers.save(container)


def merge(
    old: api_pb2.LinuxContainerResources, new: api_pb2.LinuxContainerResources
) -> api_pb2.LinuxContainerResources:
    """Return the old limits, overridden by the new ones. A new memory limit clears the old swap limit."""
    merged = api_pb2.LinuxContainerResources()
    merged.CopyFrom(old)
    if new.memory_limit_in_bytes:
        merged.memory_swap_limit_in_bytes = 0
    if new.hugepage_limits:
        del merged.hugepage_limits[:]
    merged.MergeFrom(new)
    return merged
