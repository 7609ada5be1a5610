"""StartContainer: from CREATED to RUNNING, or to EXITED with the reason StartError."""

from __future__ import annotations

import time
from functools import partial

from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, Internal, NoderuntimeError
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.exits import record_start_failure, settle
from noderuntime.lifecycle.containers.kill import kill
from noderuntime.lifecycle.containers.state import state_of
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts

_log = log.get(__name__)


async def start_container(parts: Parts, container_id: str) -> None:
    """Start a created container (CRI StartContainer).

    FailedPrecondition if it is in another state; the runtime's error if it cannot be started, or could not
    be created.
    """
    container = parts.ledger.containers.get(container_id)
    await parts.work.finish(_start(parts, container), name=f"StartContainer {container.id}")


async def _start(parts: Parts, container: Container) -> None:
    # settle() needs the second lock: the runtime's state of a short-lived container is not deleted while
    # the runtime's ``start`` is still running.
    async with parts.work.lock(container.id), parts.work.lock(f"{container.id}/exit"):
        sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
        if state_of(container) != api_pb2.CONTAINER_CREATED:
            state = api_pb2.ContainerState.Name(state_of(container))
            raise FailedPrecondition(f"container {container.id} is in state {state}, not CONTAINER_CREATED")
        if container.stopping_at:
            raise FailedPrecondition(f"container {container.id} is being stopped")
        if not sandbox.ready:
            raise FailedPrecondition(f"sandbox {sandbox.id} of container {container.id} is not ready")
        if container.unstartable:
            await record_start_failure(parts, container, container.start_error)
            raise Internal(container.start_error)
        container.starting = True
        await parts.ledger.containers.save(container)
        began = time.time_ns()
        try:
            with parts.metrics.phase("start", sandbox.handler):
                await parts.executor(sandbox.handler).start(container.id, sandbox.id, is_root=False)
        except NoderuntimeError as error:
            await fail_start(parts, container, str(error))
            raise
        container.started_at, container.starting = began, False
        await parts.ledger.containers.save(container)
    parts.events.publish(container.id, container.sandbox_id, api_pb2.CONTAINER_STARTED_EVENT)
    _log.info("container started", container=container.id, sandbox=container.sandbox_id)


async def fail_start(parts: Parts, container: Container, why: str) -> None:
    """Record that a container never ran, and kill it. If the kill fails, it is retried in the background."""
    await record_start_failure(parts, container, why)
    try:
        await kill(parts, container)
    except NoderuntimeError as error:
        _log.warning("container that did not start was not killed", container=container.id, error=error)
        what = f"end container {container.id}"
        parts.work.background(parts.retries.attempt(what, partial(settle, parts, container)), name=what)
