"""News of sandboxes and containers, from the verbs to whoever listens (CRI GetContainerEvents)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from noderuntime import log
from noderuntime.cri.v1 import api_pb2

_log = log.get(__name__)

_BACKLOG = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a container, or to a sandbox (then both IDs are the same)."""

    container_id: str
    sandbox_id: str
    kind: api_pb2.ContainerEventType
    created_at: int
    """Nanoseconds since the epoch."""


class EventHub:
    """Hands every event to every listener, in order; one that is too slow loses the oldest."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[Event]] = set()

    def publish(self, container_id: str, sandbox_id: str, kind: api_pb2.ContainerEventType) -> None:
        """Tell the listeners, now; never waits."""
        event = Event(container_id, sandbox_id, kind, time.time_ns())
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
                _log.warning("a listener is too slow, its oldest event is dropped")
            queue.put_nowait(event)

    async def listen(self) -> AsyncIterator[Event]:
        """Tell each event from now on; ends when the caller stops asking."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_BACKLOG)
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)
