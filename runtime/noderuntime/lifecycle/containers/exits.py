"""How containers end: the exit is recorded first, then the runtime's own state is given back."""

from __future__ import annotations

import time

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.kill import MONITOR_SECONDS, erase, finish_monitor
from noderuntime.lifecycle.containers.oom import oom_killed
from noderuntime.lifecycle.containers.state import LOST_CODE
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.base import ProcessRef

_log = log.get(__name__)


async def record_end(parts: Parts, container: Container) -> None:
    """Record the end of a container if it has ended and that is not known yet."""
    async with parts.work.lock(f"{container.id}/exit"):
        if not container.finished_at:
            await _record_end(parts, container)


async def settle(parts: Parts, container: Container) -> None:
    """Record the end of a container if it has ended, and give back what the runtime holds of it.

    Idempotent; raises when the runtime's state cannot be deleted (it is tried again at removal).
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


async def ended(parts: Parts, container: Container, seconds: float) -> bool:
    """Wait until the process of a container has ended and its monitor has written everything down."""
    if container.process is not None and not await parts.host.wait(container.process, timeout=seconds):
        return False
    if container.monitor is not None:
        await parts.host.wait(container.monitor, timeout=MONITOR_SECONDS)
    return True


async def _record_end(parts: Parts, container: Container) -> bool:
    exit_ = parts.monitor.exit(container.id)
    if exit_ is None and (await runs(parts, container.process) or await runs(parts, container.monitor)):
        return False
    if exit_ is None:
        # The monitor's last act and our look may cross: look once more now that it has gone.
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
    except NoderuntimeError as error:  # the end itself must be recorded all the same
        _log.warning("cannot find out about an OOM kill", container=container.id, error=error)
        return False


async def runs(parts: Parts, process: ProcessRef | None) -> bool:
    """Tell whether that very process runs."""
    return process is not None and await parts.host.process(process.pid) == process
