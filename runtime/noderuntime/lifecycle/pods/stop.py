"""StopPodSandbox: its containers are stopped and its resources released; its record stays."""

from __future__ import annotations

import time

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.core.ids import check_id
from noderuntime.core.tasks import together
from noderuntime.lifecycle.containers.intents import undo_intent
from noderuntime.lifecycle.containers.stop import halt
from noderuntime.lifecycle.ledger.ledger import sandbox_name
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods import release
from noderuntime.lifecycle.pods.root import kill_root, record_end

_log = log.get(__name__)


async def stop_pod_sandbox(parts: Parts, sandbox_id: str) -> None:
    """Stop a sandbox (CRI StopPodSandbox). A missing or stopped sandbox is not an error.

    The next call continues a stop that failed: the kubelet repeats the call until it succeeds.
    """
    sandbox = parts.ledger.sandboxes.find(check_id(sandbox_id, "sandbox ID"))
    if sandbox is not None and sandbox.visible:
        await parts.work.finish(_stop(parts, sandbox), name=f"StopPodSandbox {sandbox.id}")


async def _stop(parts: Parts, sandbox: Sandbox) -> None:
    async with parts.work.lock(sandbox.id):
        await give_back(parts, sandbox)


async def give_back(parts: Parts, sandbox: Sandbox) -> None:
    """Stop the containers and release the resources. The caller holds the sandbox's lock."""
    if sandbox.released_at:
        return
    if not sandbox.stopped_at:
        await record_end(parts, sandbox)
    parts.work.forget(sandbox_name(sandbox.config.metadata))
    await _end_containers(parts, sandbox)
    await together(release.root(parts, sandbox), release.detach(parts, sandbox), name="release a sandbox")
    await release.unpin(parts, sandbox)
    await release.remove_cgroups(parts, sandbox)
    sandbox.released_at = time.time_ns()
    await parts.ledger.sandboxes.save(sandbox)
    _log.info("sandbox stopped", sandbox=sandbox.id)


async def _end_containers(parts: Parts, sandbox: Sandbox) -> None:
    """Stop the containers. If they run inside the sandbox's process and do not end, kill that process."""
    try:
        await _end_all(parts, sandbox)
    except NoderuntimeError as error:
        if not parts.executor(sandbox.handler).traits.root_container:
            raise
        _log.warning(
            "stopping containers failed; their sandbox's process is killed", sandbox=sandbox.id, error=error
        )
        await kill_root(parts, sandbox)
        await _end_all(parts, sandbox)


async def _end_all(parts: Parts, sandbox: Sandbox) -> None:
    ends = (_end(parts, sandbox, container) for container in parts.ledger.containers.of(sandbox.id))
    await together(*ends, name="stop a container")


async def _end(parts: Parts, sandbox: Sandbox, container: Container) -> None:
    if container.visible:
        await halt(parts, container, 0)
    else:
        await undo_intent(parts, sandbox, container)
