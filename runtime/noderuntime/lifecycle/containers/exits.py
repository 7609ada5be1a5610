"""Ends of containers: the exit is recorded first, then the runtime's state is deleted."""

from __future__ import annotations

import time

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.kill import MONITOR_SECONDS, erase, finish_monitor
from noderuntime.lifecycle.containers.oom import oom_killed
from noderuntime.lifecycle.containers.state import LOST_CODE, START_ERROR_CODE
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.base import ProcessRef

_log = log.get(__name__)


async def record_end(parts: Parts, container: Container) -> None:
    """Record the end of a container if it has ended and the end is not recorded yet."""
    async with parts.work.lock(f"{container.id}/exit"):
        if not container.finished_at:
            await _record_end(parts, container)


async def settle(parts: Parts, container: Container) -> None:
    """Record the end of a container if it has ended, and delete the runtime's state of it.

    Idempotent. Raises if the runtime's state cannot be deleted; the removal of the container tries again.
    """
    async with parts.work.lock(f"{container.id}/exit"):
        if not container.finished_at and not await _record_end(parts, container):
            return
        if not container.released_at:
            sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
            with parts.metrics.phase("delete", sandbox.handler):
                await erase(parts, sandbox, container.id)
            await finish_monitor(parts, container.monitor)
            await parts.monitor.forget(container.id)
            container.released_at = time.time_ns()
            await parts.ledger.containers.save(container)


async def record_start_failure(parts: Parts, container: Container, why: str) -> None:
    """Record that a container never ran, and publish that."""
    container.start_error, container.starting = why, False
    container.exit_code, container.finished_at = START_ERROR_CODE, time.time_ns()
    parts.events.publish(container.id, container.sandbox_id, api_pb2.CONTAINER_STOPPED_EVENT)
    await parts.ledger.containers.save(container)


async def ended(parts: Parts, container: Container, seconds: float) -> bool:
    """Wait for the end of a container's process and of its monitor. Return False if the process runs on."""
    if container.process is not None and not await parts.host.wait(container.process, timeout=seconds):
        return False
    if container.monitor is not None:
        await parts.host.wait(container.monitor, timeout=MONITOR_SECONDS)
    return True


async def _record_end(parts: Parts, container: Container) -> bool:
    if container.unstartable:  # it has no process: it ends when its start or a stop is requested
        if container.stopping_at:
            await record_start_failure(parts, container, container.start_error)
        return bool(container.stopping_at)
    exit_ = parts.monitor.exit(container.id)
    if exit_ is None and (await runs(parts, container.process) or await runs(parts, container.monitor)):
        return False
    if exit_ is None:
        # The monitor may have written the exit file after the first read: read again, now that it has ended.
        exit_ = parts.monitor.exit(container.id)
    if exit_ is None:
        container.exit_code, container.finished_at, container.lost = LOST_CODE, time.time_ns(), True
    else:
        container.exit_code = exit_.exit_code
        container.oom_killed = await _oom_killed(parts, container)
        container.finished_at = exit_.finished_at
    parts.events.publish(container.id, container.sandbox_id, api_pb2.CONTAINER_STOPPED_EVENT)
    _log.info("container ended", container=container.id, code=container.exit_code, oom=container.oom_killed)
    await parts.ledger.containers.save(container)
    return True


async def _oom_killed(parts: Parts, container: Container) -> bool:
    try:
        return await oom_killed(parts, container)
    except NoderuntimeError as error:  # the end must be recorded anyway
        _log.warning("OOM kills of an ended container are unknown", container=container.id, error=error)
        return False


async def runs(parts: Parts, process: ProcessRef | None) -> bool:
    """Return whether this process runs; another process with its PID does not count."""
    return process is not None and await parts.host.process(process.pid) == process
