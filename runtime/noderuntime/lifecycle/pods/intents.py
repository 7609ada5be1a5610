"""Sandboxes whose RunPodSandbox an earlier daemon began and did not finish: no caller has their ID.

At most one RunPodSandbox works under a name at a time, so an intent that another one finds under its name
belongs to an earlier daemon and can be undone.
"""

from __future__ import annotations

import time

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.intents import end_monitor, monitor_pids
from noderuntime.lifecycle.ledger.ledger import sandbox_name
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods import release


async def free_name(parts: Parts, metadata: api_pb2.PodSandboxMetadata) -> None:
    """Undo an intent of an earlier daemon that has this name."""
    sandbox = parts.ledger.sandboxes.named(sandbox_name(metadata))
    if sandbox is not None and not sandbox.visible:
        async with parts.work.lock(sandbox.id):
            await undo_intent(parts, sandbox)


async def undo_intent(parts: Parts, sandbox: Sandbox) -> None:
    """Undo an unfinished RunPodSandbox; the caller holds the sandbox's lock.

    Without effect on a sandbox that was finished or is gone. If it fails or is cancelled, the sandbox becomes
    visible as one that is not ready, so that the kubelet can remove it.
    """
    if sandbox.visible or parts.ledger.sandboxes.find(sandbox.id) is None:
        return
    try:
        await _undo(parts, sandbox)
    except BaseException:
        await keep_undone(parts, sandbox)
        raise


async def keep_undone(parts: Parts, sandbox: Sandbox) -> None:
    """Show a sandbox that could not be undone completely as one that is not ready."""
    sandbox.stopped_at = time.time_ns()
    await parts.ledger.sandboxes.save(sandbox)


async def _undo(parts: Parts, sandbox: Sandbox) -> None:
    await end_monitor(parts, sandbox.id, await monitor_pids(parts, sandbox))
    await release.root(parts, sandbox)
    await release.detach(parts, sandbox)
    await release.unpin(parts, sandbox)
    await release.remove_cgroups(parts, sandbox)
    await parts.host.remove_tree(parts.paths.sandbox(sandbox.id).dir)
    await parts.ledger.sandboxes.drop(sandbox)
