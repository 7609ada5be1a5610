"""What is ours by its name and in no record: snapshots, bundles, sandboxes' directories and pins.

There are some only when a ledger was lost or put aside; everything else was an intent first.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Collection
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import NoderuntimeError
from noderuntime.core.ids import is_ours
from noderuntime.lifecycle.containers.checkpoint import DIRECTORY
from noderuntime.lifecycle.parts import Parts

_log = log.get(__name__)


async def remove(parts: Parts) -> None:
    """Remove all orphans; one that resists is logged and met again at the next start."""
    sandboxes = {sandbox.id for sandbox in parts.ledger.sandboxes}
    known = sandboxes | {container.id for container in parts.ledger.containers}
    for bundle in await FILES.run(_others, parts.paths.containers, known):
        await _guarded(_bundle(parts, bundle.name), bundle)
    for directory in await FILES.run(_others, parts.paths.sandboxes, sandboxes):
        await _guarded(_sandbox(parts, directory.name), directory)
    await _guarded(_snapshots(parts, known), "snapshots")
    unfinished = parts.config.server.state_dir / DIRECTORY
    await _guarded(parts.host.remove_tree(unfinished), unfinished)


async def _guarded(step: Awaitable[None], what: object) -> None:
    try:
        await step
    except (NoderuntimeError, OSError) as error:
        _log.error("an orphan is left", what=what, error=error)


async def _bundle(parts: Parts, container_id: str) -> None:
    """End what may run from a bundle, whose handler nobody knows any more, and remove it."""
    for executor in parts.executors.values():
        await executor.kill(container_id, container_id, signal.SIGKILL, everything=True)
        await executor.delete(container_id, container_id)
    await parts.monitor.forget(container_id)
    paths = parts.paths.container(container_id)
    await parts.host.unmount(paths.rootfs)
    await parts.host.remove_tree(paths.bundle)


async def _sandbox(parts: Parts, sandbox_id: str) -> None:
    paths = parts.paths.sandbox(sandbox_id)
    await parts.host.unpin_namespaces(paths.pins)
    await parts.host.unmount(paths.shm)
    await parts.host.remove_tree(paths.dir)


async def _snapshots(parts: Parts, known: Collection[str]) -> None:
    for key in await parts.images.keys() - set(known):
        await parts.images.release(key, parts.paths.container(key).rootfs)


def _others(directory: Path, known: Collection[str]) -> list[Path]:
    """List what in a directory has a name of ours and is not known."""
    if not directory.is_dir():
        return []
    return [entry for entry in directory.iterdir() if is_ours(entry.name) and entry.name not in known]
