"""Containers whose creation an earlier daemon began and did not finish: no caller has their ID.

CreateContainer holds the sandbox's lock from the intent until the container is created. An intent that is
found while that lock is held therefore belongs to an earlier daemon and can be undone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from noderuntime.core.blocking import FILES
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.build import remove_unused_log
from noderuntime.lifecycle.containers.kill import erase
from noderuntime.lifecycle.containers.pod import cgroup_of
from noderuntime.lifecycle.containers.state import START_ERROR_CODE
from noderuntime.lifecycle.containers.volumes import remove_volumes
from noderuntime.lifecycle.ledger.ledger import container_name
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.cgroup_names import monitor_cgroup


async def free_name(parts: Parts, sandbox: Sandbox, metadata: api_pb2.ContainerMetadata) -> None:
    """Undo an intent of an earlier daemon that has this name; the caller holds the sandbox's lock."""
    container = parts.ledger.containers.named(container_name(sandbox.id, metadata))
    if container is not None:
        await undo_intent(parts, sandbox, container)


async def undo_intent(parts: Parts, sandbox: Sandbox, container: Container) -> None:
    """Undo the creation of a container; the caller holds the sandbox's lock.

    Does nothing if the container was created or removed. If the undo fails or is cancelled, the container
    becomes visible as an ended one, so that the kubelet can remove it.
    """
    if container.visible or parts.ledger.containers.find(container.id) is None:
        return
    try:
        await _undo(parts, sandbox, container)
    except BaseException:
        await keep_undone(parts, container)
        raise


async def keep_undone(parts: Parts, container: Container) -> None:
    """Record a container whose undo is incomplete as an ended one."""
    container.start_error = "its creation failed and could not be undone completely"
    container.exit_code, container.finished_at = START_ERROR_CODE, time.time_ns()
    await parts.ledger.containers.save(container)


async def end_monitor(parts: Parts, container_id: str, pids: Iterable[int] = ()) -> None:
    """Kill the monitor of an unfinished create, and the runtime that it runs.

    The monitor is one of ``pids``, or the process that the bundle names; its command line has the
    container's ID.
    """
    named = await FILES.run(parts.monitor.pid, parts.paths.container(container_id).bundle)
    for pid in {*pids} if named is None else {*pids, named}:
        process = await parts.host.process(pid, names=container_id)
        if process is not None:
            await parts.host.kill_tree(process)


async def monitor_pids(parts: Parts, sandbox: Sandbox) -> list[int]:
    """List the processes of the cgroup that a sandbox's monitors run in."""
    return await parts.host.cgroup_pids(monitor_cgroup(cgroup_of(parts, sandbox)))


async def _undo(parts: Parts, sandbox: Sandbox, container: Container) -> None:
    paths = parts.paths.container(container.id)
    await end_monitor(parts, container.id, await monitor_pids(parts, sandbox))
    await erase(parts, sandbox, container.id)
    await parts.monitor.forget(container.id)
    await remove_unused_log(container.log_path)
    await parts.images.release(container.id, paths.rootfs)
    await parts.host.remove_tree(paths.bundle)
    await remove_volumes(parts, container.id)
    await parts.ledger.containers.drop(container)
