"""Kill a container, and remove its state and its cgroup."""

from __future__ import annotations

import signal
import time

from noderuntime.core import log
from noderuntime.core.errors import DeadlineExceeded, NoderuntimeError
from noderuntime.core.tasks import Lock
from noderuntime.lifecycle.containers.pod import cgroup_of
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.cgroup_names import container_cgroup

_log = log.get(__name__)

KILL_SECONDS = 30.0
"""Seconds that a process can take to end after SIGKILL."""
MONITOR_SECONDS = 8.0
"""Seconds that a monitor has to record the end of its container, and to forward the last output."""


def killing(parts: Parts, container: Container) -> Lock:
    """Return the lock that is held from sending SIGKILL until ``killed_at`` is recorded."""
    return parts.work.lock(f"{container.id}/kill")


async def kill(parts: Parts, container: Container) -> None:
    """Send SIGKILL to all processes of a container and record it. Does not wait for their ends."""
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    async with killing(parts, container):
        executor, first = parts.executor(sandbox.handler), container.process
        if await executor.kill(container.id, sandbox.id, signal.SIGKILL, process=first):
            container.killed_at = container.killed_at or time.time_ns()
            await note(parts, container)
    await parts.host.kill_cgroup(cgroup(parts, sandbox, container.id))


async def note(parts: Parts, container: Container) -> None:
    """Save the record of a stop. An error is logged only: a full disk must not prevent the stop."""
    try:
        await parts.ledger.containers.save(container)
    except NoderuntimeError as error:
        _log.warning("stop of a container was not recorded", container=container.id, error=error)


async def finish_monitor(parts: Parts, monitor: ProcessRef | None) -> None:
    """Wait for the monitor of an ended container to end; kill it after :data:`MONITOR_SECONDS`."""
    if monitor is None or await parts.host.wait(monitor, timeout=MONITOR_SECONDS):
        return
    await parts.host.kill_tree(monitor)
    if not await parts.host.wait(monitor, timeout=KILL_SECONDS):
        state = await parts.host.stuck(monitor)
        raise DeadlineExceeded(f"monitor {monitor.pid} did not end {KILL_SECONDS:g} s after SIGKILL: {state}")


def cgroup(parts: Parts, sandbox: Sandbox, container_id: str) -> str:
    """Return the path of a container's cgroup, or of the sandbox's own container."""
    return container_cgroup(cgroup_of(parts, sandbox), container_id, parts.cgroup_driver)


async def erase(parts: Parts, sandbox: Sandbox, container_id: str) -> None:
    """Delete a container from its runtime, empty its cgroup by SIGKILL, and remove the cgroup. Idempotent.

    A runtime that has lost its state does not remove the cgroup, and runsc does not wait until it is empty.
    """
    await parts.executor(sandbox.handler).delete(container_id, sandbox.id)
    path = cgroup(parts, sandbox, container_id)
    await parts.host.empty_cgroup(path, timeout=KILL_SECONDS)
    await parts.host.remove_cgroup(path)
