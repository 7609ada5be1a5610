"""Reconcile the ledger with the node after a restart of the daemon, a ``kill -9``, or a reboot.

    recover      before the first call is served: record what died; uses nothing that can hang
    tear_down    in the background: release the resources of what died, and undo unfinished creations

Assumptions of both:

* Each object was an intent in the ledger before it was created. The ID of an intent that is not visible was
  never returned to a caller, so the intent is undone; all undo steps accept objects that do not exist.
* A process is ours if its PID and start time are the recorded ones. A sandbox is alive if its namespaces are
  still pinned: after a reboot, or in a new ``/run``, they are not, even if the boot ID is unchanged (a node
  that is a container keeps its boot ID).
* The exit file of a container's monitor records how the container ended. If it is missing, the exit is lost:
  exit code 255, reason Unknown. The supervisor, which starts between the two steps, observes later ends, and
  tears down each container whose monitor has ended.
* The kubelet's calls run concurrently with the background. Both hold an object's lock while they change the
  object, and each step can be repeated.
* The daemon can be killed during recovery: the next one starts over.

An error or a hang, of any kind, concerns one object: it is logged and retried in the background.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Set
from functools import partial
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.tasks import concurrently, together
from noderuntime.lifecycle import orphans
from noderuntime.lifecycle.containers.checkpoint import end_dump
from noderuntime.lifecycle.containers.exits import record_end as record_container_end
from noderuntime.lifecycle.containers.exits import record_start_failure, runs
from noderuntime.lifecycle.containers.intents import undo_intent as undo_container
from noderuntime.lifecycle.containers.pod import user_of
from noderuntime.lifecycle.containers.update import finish_update
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.log_context import bind_container, bind_sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.intents import undo_intent as undo_sandbox
from noderuntime.lifecycle.pods.root import needs_root, record_end, root_ended
from noderuntime.lifecycle.pods.run import pins_of
from noderuntime.lifecycle.pods.stop import give_back
from noderuntime.lifecycle.supervisor import reap

_log = log.get(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the kernel's ID of this boot."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


async def recover(parts: Parts, boot: str) -> None:
    """Record in the ledger what died. Runs before the first call is served."""
    began = time.monotonic()
    same_boot = await parts.ledger.meta("boot_id") == boot
    containers, sandboxes = list(parts.ledger.containers), list(parts.ledger.sandboxes)
    pins = [pin for sandbox in sandboxes for pin in parts.paths.sandbox(sandbox.id).pins]
    mounted = await parts.host.mounted(pins) if same_boot else set()
    await concurrently(
        *(_attempt(parts, c, partial(_recover_container, parts, c, same_boot)) for c in containers),
        *(_attempt(parts, s, partial(_recover_sandbox, parts, s, same_boot, mounted)) for s in sandboxes),
        name="recover",
    )
    await parts.ledger.set_meta("boot_id", boot)
    _log.info(
        "recovered",
        sandboxes=len(sandboxes),
        containers=len(containers),
        same_boot=same_boot,
        ms=int((time.monotonic() - began) * 1000),
    )


async def tear_down(parts: Parts) -> None:
    """Tear down what died, undo unfinished creations, and remove orphans.

    Returns when each object was tried once; :attr:`Parts.retries` repeats failed attempts.
    """
    began = time.monotonic()
    await together(
        *(_tear_down_pod(parts, sandbox) for sandbox in parts.ledger.sandboxes),
        orphans.remove(parts),
        name="tear down what died",
    )
    _log.info("torn down", failed=len(parts.retries), ms=int((time.monotonic() - began) * 1000))


async def _attempt(parts: Parts, record: Sandbox | Container, step: Callable[[], Awaitable[None]]) -> None:
    if isinstance(record, Sandbox):
        bind_sandbox(record)
        what = f"sandbox {record.id}"
    else:
        bind_container(parts.ledger, record)
        what = f"container {record.id}"
    await parts.retries.attempt(f"recover {what}", step)


async def _recover_container(parts: Parts, container: Container, same_boot: bool) -> None:
    if parts.ledger.sandboxes.find(container.sandbox_id) is None:
        await parts.ledger.containers.drop(container)  # its resources are removed as orphans
        return
    if not same_boot:
        container.process = container.monitor = None
        await parts.ledger.containers.save(container)
    if container.live:
        await record_container_end(parts, container)
    if container.live and container.starting:
        await record_start_failure(parts, container, "the daemon ended during the container's start")


async def _recover_sandbox(parts: Parts, sandbox: Sandbox, same_boot: bool, mounted: Set[Path]) -> None:
    if not same_boot:
        sandbox.root = sandbox.monitor = None
        await parts.ledger.sandboxes.save(sandbox)
    if sandbox.ready and not (same_boot and _is_pinned(parts, sandbox, mounted)):
        await record_end(parts, sandbox)
    elif sandbox.ready and needs_root(parts, sandbox) and not await runs(parts, sandbox.root):
        await root_ended(parts, sandbox)


def _is_pinned(parts: Parts, sandbox: Sandbox, mounted: Set[Path]) -> bool:
    """Return whether each of the sandbox's namespaces is still mounted on its pin."""
    pins, user = {*pins_of(parts, sandbox).values()}, user_of(parts, sandbox)
    if user is not None:
        pins.add(user.pin)
    return pins <= mounted and parts.paths.sandbox(sandbox.id).dir.is_dir()


async def _tear_down_pod(parts: Parts, sandbox: Sandbox) -> None:
    """Tear down the containers of a sandbox that have no monitor, then the sandbox if it is not ready.

    An interrupted checkpoint of a live container is aborted, and an interrupted update is repeated.
    """
    await concurrently(
        *(
            _attempt(parts, container, partial(_tear_down_container, parts, sandbox, container))
            for container in parts.ledger.containers.of(sandbox.id)
            if not (container.released_at or container.unstartable or _is_watched(container))
        ),
        name="tear down a container",
    )
    for container in parts.ledger.containers.of(sandbox.id):
        if container.checkpointing_at:
            await _attempt(parts, container, partial(end_dump, parts, container))
        if container.updating.ByteSize():
            await _attempt(parts, container, partial(finish_update, parts, container))
    if not sandbox.ready and not sandbox.released_at:
        await _attempt(parts, sandbox, partial(_tear_down_sandbox, parts, sandbox))


def _is_watched(container: Container) -> bool:
    """Return whether the supervisor tears a container down, because its monitor ends with it.

    A container whose start failed can still run: the daemon may have been killed during the start.
    """
    return container.visible and container.monitor is not None and not container.start_error


async def _tear_down_container(parts: Parts, sandbox: Sandbox, container: Container) -> None:
    if container.visible:
        await reap(parts, container)
    else:
        async with parts.work.lock(sandbox.id):
            await undo_container(parts, sandbox, container)


async def _tear_down_sandbox(parts: Parts, sandbox: Sandbox) -> None:
    async with parts.work.lock(sandbox.id):
        if sandbox.visible:
            await give_back(parts, sandbox)
        else:
            await undo_sandbox(parts, sandbox)
