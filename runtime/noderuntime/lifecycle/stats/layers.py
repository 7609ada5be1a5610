"""The disk usage of containers' writable layers, measured in the background.

Measuring walks a container's files in the snapshotter. A caller gets the last measurement, and starts a
new one if that is old. It waits only for containers that were never measured, and not long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from noderuntime.core import log, tasks
from noderuntime.core.errors import NoderuntimeError

_log = log.get(__name__)

_FRESH = 10.0
_FIRST_WAIT = 0.5
_AT_ONCE = 2
_FORGET = 600.0


class Usage(Protocol):
    """The disk usage of a writable layer."""

    @property
    def bytes(self) -> int:
        """Disk usage in bytes."""

    @property
    def inodes(self) -> int:
        """Number of files and directories."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement of a writable layer."""

    timestamp: int
    """Nanoseconds since the epoch."""
    filesystem: str
    """The directory that contains it (CRI ``fs_id``)."""
    bytes: int
    inodes: int


class WritableLayers:
    """The last measurement of each container's writable layer."""

    def __init__(
        self, measure: Callable[[str], Awaitable[Usage]], filesystem: Callable[[], Awaitable[str]]
    ) -> None:
        self._measure = measure
        self._filesystem = filesystem
        self._known: dict[str, Measured] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def of(self, container_ids: Collection[str]) -> Mapping[str, Measured]:
        """Return the last measurements, after at most half a second. Containers without one are omitted."""
        now = time.time_ns()
        first = []
        for container_id in container_ids:
            known = self._known.get(container_id)
            if known is None or now - known.timestamp > _FRESH * 1e9:
                task = self._running.get(container_id) or self._start(container_id)
                if known is None:
                    first.append(task)
        if first:
            await asyncio.wait(first, timeout=_FIRST_WAIT)
        return {one: self._known[one] for one in container_ids if one in self._known}

    async def close(self) -> None:
        """Stop measuring."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await tasks.settle(*running)

    def _start(self, container_id: str) -> asyncio.Task[None]:
        task = tasks.background(
            self._update(container_id), name=f"measure the writable layer of {container_id}"
        )
        self._running[container_id] = task
        task.add_done_callback(lambda _: self._running.pop(container_id, None))
        return task

    async def _update(self, container_id: str) -> None:
        async with self._slots:
            try:
                usage, filesystem = await self._measure(container_id), await self._filesystem()
            except NoderuntimeError as error:
                _log.debug("writable layer not measured", container=container_id, error=error)
                return
        now = time.time_ns()
        self._known[container_id] = Measured(now, filesystem, usage.bytes, usage.inodes)
        self._known = {
            one: known for one, known in self._known.items() if now - known.timestamp < _FORGET * 1e9
        }
