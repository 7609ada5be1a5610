"""Events of sandboxes and containers, published by verbs for listeners (CRI GetContainerEvents)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from noderuntime.core import log
from noderuntime.cri.v1 import api_pb2

_log = log.get(__name__)

_BACKLOG = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a container, or of a sandbox (then both IDs are the same)."""

    container_id: str
    sandbox_id: str
    kind: api_pb2.ContainerEventType
    created_at: int
    """Nanoseconds since the epoch."""
    last: api_pb2.PodSandboxStatus | None = None
    """The last status of a removed sandbox."""


class EventHub:
    """Delivers each event to all listeners, in order. A listener that is too slow loses its oldest events."""

    def __init__(self) -> None:
        self._listeners: dict[asyncio.Queue[Any], Callable[[Event], Any]] = {}

    def publish(
        self,
        container_id: str,
        sandbox_id: str,
        kind: api_pb2.ContainerEventType,
        last: api_pb2.PodSandboxStatus | None = None,
    ) -> None:
        """Deliver an event to the listeners without waiting. ``last`` is a removed sandbox's last status."""
        event = Event(container_id, sandbox_id, kind, time.time_ns(), last)
        for queue, convert in self._listeners.items():
            if queue.full():
                queue.get_nowait()
                _log.warning("oldest event of a slow listener dropped")
            queue.put_nowait(convert(event))

    async def listen(self, convert: Callable[[Event], T]) -> AsyncGenerator[T]:
        """Yield each event from now on, converted at the time when it is published.

        The listener is removed when the generator is closed.
        """
        queue: asyncio.Queue[T] = asyncio.Queue(_BACKLOG)
        self._listeners[queue] = convert
        try:
            while True:
                yield await queue.get()
        finally:
            del self._listeners[queue]
