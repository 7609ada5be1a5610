"""StopContainer: the stop signal, then patience, then SIGKILL."""

from __future__ import annotations

import signal
import time

from noderuntime.core.errors import DeadlineExceeded
from noderuntime.core.ids import check_id
from noderuntime.lifecycle.containers.exits import ended, settle
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts

_KILL_PATIENCE = 30.0
"""Seconds that the kernel may take to end what was sent SIGKILL."""


async def stop_container(parts: Parts, container_id: str, timeout: float) -> None:
    """Stop a container, giving it ``timeout`` seconds to go by itself (CRI StopContainer).

    0 kills at once. Nothing to stop is no error. Calls at the same time share the one stop
    signal; each sees to its own timeout. Raises DeadlineExceeded when SIGKILL has no effect.
    """
    container = parts.ledger.containers.find(check_id(container_id, "container ID"))
    if container is not None and container.visible:
        await parts.work.finish(halt(parts, container, timeout), name=f"StopContainer {container.id}")


async def halt(parts: Parts, container: Container, timeout: float) -> None:
    """End a container and record how it ended; without effect on one that has ended."""
    if container.finished_at:
        return
    if not (container.running and timeout > 0 and await _ask(parts, container, timeout)):
        await _kill(parts, container)
    await settle(parts, container)


async def _ask(parts: Parts, container: Container, timeout: float) -> bool:
    """Send the stop signal, once in its life, and wait; tell whether it ended in time."""
    if not container.stopping_at:
        container.stopping_at = time.time_ns()
        await parts.ledger.containers.save(container)
        sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
        executor = parts.executor(sandbox.handler)
        await executor.kill(container.id, sandbox.id, container.stop_signal, everything=False)
    return await ended(parts, container, timeout)


async def _kill(parts: Parts, container: Container) -> None:
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    executor = parts.executor(sandbox.handler)
    await executor.kill(container.id, sandbox.id, signal.SIGKILL, everything=True)
    if not await ended(parts, container, _KILL_PATIENCE):
        raise DeadlineExceeded(f"container {container.id} did not end {_KILL_PATIENCE:g} s after SIGKILL")
