"""UpdateContainerResources: set new limits of a container."""

from __future__ import annotations

from typing import Any

from noderuntime.core.errors import ToolError
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.exits import runs
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.spec.resources import oci_resources


async def update_container_resources(
    parts: Parts, container_id: str, resources: api_pb2.LinuxContainerResources
) -> None:
    """Set limits (CRI UpdateContainerResources). Fields that are 0 or empty keep their old limits.

    Those of a container without a process are only recorded. After an error the record has the old limits.
    """
    container = parts.ledger.containers.get(container_id)
    await parts.work.finish(
        _update(parts, container, resources), name=f"UpdateContainerResources {container.id}"
    )


async def _update(parts: Parts, container: Container, resources: api_pb2.LinuxContainerResources) -> None:
    async with parts.work.lock(container.id):
        await _apply(parts, container, merge(container.resources, resources))


async def finish_update(parts: Parts, container: Container) -> None:
    """Apply the limits of an update that the end of an earlier daemon interrupted."""
    async with parts.work.lock(container.id):
        if container.updating.ByteSize():
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
        await _set(parts, sandbox, container, oci)
    except Exception:
        await _close(parts, container)
        raise
    container.resources.CopyFrom(resources)
    await _close(parts, container)


async def _set(parts: Parts, sandbox: Sandbox, container: Container, oci: dict[str, Any]) -> None:
    """Set the limits in the kernel, unless the container has no process, or its process ends meanwhile."""
    if not await runs(parts, container.process):
        return
    try:
        await parts.executor(sandbox.handler).update(container.id, sandbox.id, oci)
    except ToolError:
        if await runs(parts, container.process):
            raise


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
