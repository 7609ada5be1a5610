"""Remove orphans: bundles, snapshots, directories, pins, volumes and checkpoints that no record names.

Orphans exist only after the ledger was lost, or a row of it became unreadable, because each object is
recorded before it is created. They are listed before the records are read, so that an object that a call
creates meanwhile is not an orphan.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from noderuntime.core.blocking import FILES
from noderuntime.core.ids import is_ours
from noderuntime.core.tasks import concurrently, together
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.checkpoint import DIRECTORY
from noderuntime.lifecycle.containers.intents import end_monitor
from noderuntime.lifecycle.containers.volumes import DIRECTORY as VOLUMES
from noderuntime.lifecycle.containers.volumes import remove_volumes
from noderuntime.lifecycle.parts import Parts


async def remove(parts: Parts) -> None:
    """Try once to remove all orphans. Failed removals are retried in the background."""
    attempt = parts.retries.attempt
    checkpoints = parts.config.server.state_dir / DIRECTORY
    bundles = await FILES.run(_entries, parts.paths.containers)
    directories = await FILES.run(_entries, parts.paths.sandboxes)
    volumes = await FILES.run(_entries, parts.config.server.state_dir / VOLUMES)
    known = _known(parts)
    await concurrently(
        *(attempt(f"remove orphaned bundle {one}", partial(_bundle, parts, one)) for one in bundles - known),
        *(
            attempt(f"remove orphaned sandbox {one}", partial(_sandbox, parts, one))
            for one in directories - known
        ),
        *(
            attempt(f"remove orphaned volumes {one}", partial(remove_volumes, parts, one))
            for one in volumes - known
        ),
        *(
            attempt(f"remove unfinished checkpoint {one}", partial(_checkpoint, parts, checkpoints, one))
            for one in await FILES.run(_entries, checkpoints)
        ),
        attempt("remove orphaned snapshots", partial(_snapshots, parts)),
        name="remove orphans",
    )


async def _bundle(parts: Parts, container_id: str) -> None:
    """Kill what runs from a bundle, and remove it. Its handler is unknown, so each one is tried."""
    await end_monitor(parts, container_id)
    for executor in parts.executors.values():
        if await executor.has_state(container_id):
            await executor.delete(container_id, container_id)
    await parts.monitor.forget(container_id)
    paths = parts.paths.container(container_id)
    await parts.host.unmount(paths.rootfs)
    await parts.host.remove_tree(paths.bundle)


async def _sandbox(parts: Parts, sandbox_id: str) -> None:
    paths = parts.paths.sandbox(sandbox_id)
    if await parts.host.mounted([paths.netns]):  # the plugins find their state by the sandbox's ID
        await parts.network.detach(sandbox_id, str(paths.netns), api_pb2.PodSandboxConfig(), b"")
    await parts.host.unpin_namespaces(paths.pins)
    await parts.host.unmount(paths.shm)
    await parts.host.remove_tree(paths.dir)


async def _snapshots(parts: Parts) -> None:
    orphans = await parts.images.keys() - _known(parts)
    await together(
        *(parts.images.release(key, parts.paths.container(key).rootfs) for key in orphans),
        name="release a snapshot",
    )


async def _checkpoint(parts: Parts, directory: Path, container_id: str) -> None:
    async with parts.work.lock(container_id):  # a checkpoint in progress holds the same lock
        await parts.host.remove_tree(directory / container_id)


def _known(parts: Parts) -> set[str]:
    return {record.id for table in (parts.ledger.sandboxes, parts.ledger.containers) for record in table}


def _entries(directory: Path) -> set[str]:
    """Return the entries of a directory whose names are IDs of this runtime."""
    return (
        {entry.name for entry in directory.iterdir() if is_ours(entry.name)} if directory.is_dir() else set()
    )
