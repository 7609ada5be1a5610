"""RemovePodSandbox: the sandbox, its containers and its record are removed."""

from __future__ import annotations

from noderuntime.core import log
from noderuntime.core.ids import check_id
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.remove import discard
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.status import describe
from noderuntime.lifecycle.pods.stop import give_back

_log = log.get(__name__)


async def remove_pod_sandbox(parts: Parts, sandbox_id: str) -> None:
    """Remove a sandbox and its containers, stopping them if they run (CRI RemovePodSandbox).

    A missing sandbox is not an error.
    """
    sandbox = parts.ledger.sandboxes.find(check_id(sandbox_id, "sandbox ID"))
    if sandbox is not None and sandbox.visible:
        await parts.work.finish(_remove(parts, sandbox), name=f"RemovePodSandbox {sandbox.id}")


async def _remove(parts: Parts, sandbox: Sandbox) -> None:
    async with parts.work.lock(sandbox.id):
        if parts.ledger.sandboxes.find(sandbox.id) is None:
            return
        await give_back(parts, sandbox)
        for container in parts.ledger.containers.of(sandbox.id):
            await discard(parts, container)
        await parts.host.remove_tree(parts.paths.sandbox(sandbox.id).dir)
        await parts.ledger.sandboxes.drop(sandbox)
    parts.events.publish(sandbox.id, sandbox.id, api_pb2.CONTAINER_DELETED_EVENT, describe(sandbox))
    _log.info("sandbox removed", sandbox=sandbox.id)
