"""Attach: connect a client to the stdio of a container's first process."""

from __future__ import annotations

import asyncio
import math

from noderuntime.core import log
from noderuntime.core.sessions import Command, Stdio, wanted_streams
from noderuntime.core.tasks import Scope, first
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.state import must_run
from noderuntime.lifecycle.containers.stdio_relay import relay
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts

_log = log.get(__name__)

_LAST_OUTPUT_SECONDS = 10.0
"""Seconds that a client has to read the last output of an ended container; the monitor waits for it."""


def attach_session(parts: Parts, request: api_pb2.AttachRequest) -> Command:
    """Check an Attach request and return its session (CRI Attach)."""
    must_run(parts.ledger.containers.get(request.container_id))
    return Command("attach", wanted_streams(request), lambda stdio: _run(parts, request, stdio))


async def _run(parts: Parts, request: api_pb2.AttachRequest, stdio: Stdio) -> int:
    """Serve the client until the container ends, or until its input does.

    With StdinOnce, the end of the client's input closes the container's stdin; its output still arrives.
    """
    container = parts.ledger.containers.get(request.container_id)
    must_run(container)  # it may have ended since the request
    talk = await parts.monitor.attach(parts.paths.container(container.id).bundle)
    _log.debug("attached", container=container.id)
    config = container.config
    relayed = relay(
        talk,
        stdio,
        stdin=request.stdin and config.stdin,
        ends_with_input=request.tty or not config.stdin_once,
    )
    try:
        async with Scope() as scope:
            relaying = scope.start(relayed, name="relay an attached client")
            ending = scope.start(_await_end(parts, container), name="await the end of an attached container")
            await first(relaying, ending)
            for task in (relaying, ending):
                if task.done():
                    task.result()
    finally:
        await talk.close()
    return 0


async def _await_end(parts: Parts, container: Container) -> None:
    """Return when the container's process has ended and its last output can have been read."""
    if container.process is not None:
        await parts.host.wait(container.process, timeout=math.inf)
    await asyncio.sleep(_LAST_OUTPUT_SECONDS)
