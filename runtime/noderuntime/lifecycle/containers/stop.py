"""StopContainer: send the stop signal, wait, then send SIGKILL."""

from __future__ import annotations

import asyncio
import time

from noderuntime.core.errors import DeadlineExceeded
from noderuntime.core.ids import check_id
from noderuntime.lifecycle.containers.exits import ended, runs, settle
from noderuntime.lifecycle.containers.kill import KILL_SECONDS, finish_monitor, kill, note
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.base import ProcessRef


async def stop_container(parts: Parts, container_id: str, timeout: float) -> None:
    """Stop a container; kill it if it has not ended after ``timeout`` seconds (CRI StopContainer).

    0 kills at once. No error if the container is missing or has ended. Each call sends the stop signal and
    kills after its own timeout, so the earliest deadline counts; a call that its client has left by then
    does not kill. DeadlineExceeded describes a process that does not end after SIGKILL; the next call tries
    again.
    """
    container = parts.ledger.containers.find(check_id(container_id, "container ID"))
    if container is None or not container.visible:
        return
    left = asyncio.Event()
    try:
        await parts.work.finish(halt(parts, container, timeout, left), name=f"StopContainer {container.id}")
    except asyncio.CancelledError:
        left.set()
        raise


async def halt(parts: Parts, container: Container, timeout: float, left: asyncio.Event | None = None) -> None:
    """Stop a container and record its end. Does nothing if it has ended.

    A container that is recorded as ended because its start failed can still run; it is killed. One that
    outlives its timeout is not, if ``left`` is set.
    """
    if container.finished_at and not await runs(parts, container.process):
        return
    container.stopping_at = container.stopping_at or time.time_ns()
    if not (container.running and timeout > 0 and await _ask(parts, container, timeout)):
        if left is not None and left.is_set():
            return
        await _kill(parts, container)
    await settle(parts, container)
    if not container.finished_at:  # its monitor has not recorded the end
        await finish_monitor(parts, container.monitor)
        await settle(parts, container)


async def _ask(parts: Parts, container: Container, timeout: float) -> bool:
    """Send the stop signal and wait; return whether the container ended in time."""
    await note(parts, container)
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    executor = parts.executor(sandbox.handler)
    await executor.kill(container.id, sandbox.id, container.stop_signal, process=container.process)
    return await ended(parts, container, timeout)


async def _kill(parts: Parts, container: Container) -> None:
    await kill(parts, container)
    if not await ended(parts, container, KILL_SECONDS):
        sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
        state = "; ".join([await parts.host.stuck(one) for one in _processes(parts, sandbox, container)])
        raise DeadlineExceeded(
            f"container {container.id} did not end {KILL_SECONDS:g} s after SIGKILL: {state}"
        )


def _processes(parts: Parts, sandbox: Sandbox, container: Container) -> list[ProcessRef]:
    """Return the processes that must end for the container to end."""
    inside = parts.executor(sandbox.handler).traits.root_container
    return [one for one in (container.process, sandbox.root if inside else None) if one is not None]
