"""News of sandboxes and containers, from the verbs to whoever listens (CRI GetContainerEvents)."""

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
    """Something happened to a container, or to a sandbox (then both IDs are the same)."""

    container_id: str
    sandbox_id: str
    kind: api_pb2.ContainerEventType
    created_at: int
    """Nanoseconds since the epoch."""
    last: api_pb2.PodSandboxStatus | None = None
    """How a sandbox was that is gone now."""


class EventHub:
    """Hands every event to every listener, in order; one that is too slow loses the oldest."""

    def __init__(self) -> None:
        self._listeners: dict[asyncio.Queue[Any], Callable[[Event], Any]] = {}

    def publish(
        self,
        container_id: str,
        sandbox_id: str,
        kind: api_pb2.ContainerEventType,
        last: api_pb2.PodSandboxStatus | None = None,
    ) -> None:
        """Tell the listeners, now; never waits. ``last`` is how a sandbox was that is gone."""
        event = Event(container_id, sandbox_id, kind, time.time_ns(), last)
        for queue, tell in self._listeners.items():
            if queue.full():
                queue.get_nowait()
                _log.warning("a listener is too slow, its oldest event is dropped")
            queue.put_nowait(tell(event))

    async def listen(self, tell: Callable[[Event], T]) -> AsyncGenerator[T]:
        """Yield what ``tell`` makes of each event from now on, as things are when it happens.

        Ends when the caller stops asking.
        """
        queue: asyncio.Queue[T] = asyncio.Queue(_BACKLOG)
        self._listeners[queue] = tell
        try:
            while True:
                yield await queue.get()
        finally:
            del self._listeners[queue]
