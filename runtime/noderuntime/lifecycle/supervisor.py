"""Watch the monitor of each container and the root process of each ready sandbox, each with a pidfd.

The records name the processes to watch. Each saved record is checked again, so that an end between two steps
of a verb, which had no effect at that time, is observed after the second step.

monitor of a container   it ends right after it has recorded the container's end: the end is saved, and the
                         runtime's state is deleted; if the monitor was killed, the container's output and
                         exit code are lost, and the container is killed (255, Unknown)
root of a sandbox        the sandbox is no longer ready
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from noderuntime.lifecycle.containers.exits import runs, settle
from noderuntime.lifecycle.containers.stop import halt
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.log_context import bind_container, bind_sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.root import root_ended
from noderuntime.node.host.base import ProcessRef, Watching


class Supervisor:
    """Watches the processes that the ledger's records name, while it is entered."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._watched: dict[str, _Watched] = {}

    def __enter__(self) -> Supervisor:
        ledger = self._parts.ledger
        ledger.containers.observe(self._check_container)
        ledger.sandboxes.observe(self._check_sandbox)
        return self

    def __exit__(self, *_: object) -> None:
        ledger = self._parts.ledger
        ledger.containers.observe(lambda _: None)
        ledger.sandboxes.observe(lambda _: None)
        for watched in self._watched.values():
            watched.watching.close()
        self._watched.clear()

    def _check_container(self, container: Container) -> None:
        monitor = container.monitor if container.visible and not container.released_at else None
        self._check(container.id, monitor, lambda: self._monitor_ended(container))

    def _check_sandbox(self, sandbox: Sandbox) -> None:
        root = sandbox.root if sandbox.ready else None
        self._check(sandbox.id, root, lambda: self._root_ended(sandbox))

    def _check(
        self, object_id: str, process: ProcessRef | None, on_end: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Watch this process of an object instead of the earlier one; None watches no process."""
        watched = self._watched.get(object_id)
        if watched is not None:
            if watched.process == process:
                return
            watched.watching.close()
            del self._watched[object_id]
        if process is not None:
            act = partial(self._act, object_id, on_end)
            self._watched[object_id] = _Watched(process, self._parts.host.watch(process, act))

    def _act(self, object_id: str, on_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._parts.work.background(on_end(), name=f"record the end of {object_id}")

    async def _monitor_ended(self, container: Container) -> None:
        bind_container(self._parts.ledger, container)
        await self._parts.retries.attempt(
            f"end container {container.id}", lambda: reap(self._parts, container)
        )

    async def _root_ended(self, sandbox: Sandbox) -> None:
        bind_sandbox(sandbox)
        await root_ended(self._parts, sandbox)


async def reap(parts: Parts, container: Container) -> None:
    """Record the end of a container, and delete the runtime's state of it.

    A container that runs without its monitor is killed: its output and its exit code are lost.
    """
    await settle(parts, container)
    if container.live and not await runs(parts, container.monitor):
        await halt(parts, container, 0)


@dataclass(frozen=True, slots=True)
class _Watched:
    process: ProcessRef
    watching: Watching
