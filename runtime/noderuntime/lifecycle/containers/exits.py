"""How containers end: the exit is recorded first, then the runtime's own state is given back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Coroutine
from typing import Any

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.oom import oom_killed
from noderuntime.lifecycle.containers.pod import cgroup_of
from noderuntime.lifecycle.containers.state import LOST_CODE
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.log_context import bind_container, bind_sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.cgroup_names import container_cgroup
from noderuntime.node.monitor.base import Exit

_log = log.get(__name__)

_LAST_WORDS = 10.0
"""Seconds that a monitor may take to write the exit file after its container ended."""


async def watch(
    parts: Parts, exits: AsyncIterable[Exit], on_root_exit: Callable[[Parts, str], Coroutine[Any, Any, None]]
) -> None:
    """Record exits as they are told; ``on_root_exit`` gets those of sandboxes. Runs until cancelled."""
    async for ended in exits:
        container = parts.ledger.containers.find(ended.container_id)
        if container is not None and container.visible:
            bind_container(parts.ledger, container)
            parts.work.background(_settle_told(parts, container), name=f"record the end of {container.id}")
        elif (sandbox := parts.ledger.sandboxes.find(ended.container_id)) is not None:
            bind_sandbox(sandbox)
            parts.work.background(
                on_root_exit(parts, ended.container_id), name=f"record the end of {ended.container_id}"
            )


async def _settle_told(parts: Parts, container: Container) -> None:
    try:
        await settle(parts, container)
    except NoderuntimeError as error:
        _log.error("what an ended container had is not given back yet", container=container.id, error=error)


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
                await parts.executor(sandbox.handler).delete(container.id, sandbox.id)
            await _remove_cgroup(parts, sandbox, container)
            await parts.monitor.forget(container.id)
            container.released_at = time.time_ns()
            await parts.ledger.containers.save(container)


async def ended(parts: Parts, container: Container, seconds: float) -> bool:
    """Wait until the process of a container has ended and its monitor has written everything down."""
    if container.process is not None and not await parts.host.wait(container.process, timeout=seconds):
        return False
    if container.monitor is not None:
        await parts.host.wait(container.monitor, timeout=_LAST_WORDS)
    return True


async def _remove_cgroup(parts: Parts, sandbox: Sandbox, container: Container) -> None:
    """Remove what the runtime may leave: runsc does not wait until a cgroup can be removed."""
    path = container_cgroup(cgroup_of(parts, sandbox), container.id, parts.cgroup_driver)
    await parts.host.remove_cgroup(path)


async def _record_end(parts: Parts, container: Container) -> bool:
    exit_ = parts.monitor.exit(container.id)
    if exit_ is None and (await _runs(parts, container.process) or await _runs(parts, container.monitor)):
        return False
    if exit_ is None:
        # The monitor's last act and our look may cross: look once more now that it has gone.
        exit_ = parts.monitor.exit(container.id)
    if exit_ is None:
        container.exit_code, container.finished_at, container.lost = LOST_CODE, time.time_ns(), True
    else:
        container.exit_code, container.finished_at = exit_.exit_code, exit_.finished_at
        container.oom_killed = await oom_killed(parts, container)
    await parts.ledger.containers.save(container)
    parts.events.publish(container.id, container.sandbox_id, api_pb2.CONTAINER_STOPPED_EVENT)
    _log.info("container ended", container=container.id, code=container.exit_code, oom=container.oom_killed)
    return True


async def _runs(parts: Parts, process: ProcessRef | None) -> bool:
    return process is not None and await parts.host.process(process.pid) == process
