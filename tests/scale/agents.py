"""A simulated node's agent: the real loop and client around a node that is Ready at once."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from noderuntime.agent.instance import Instance
from noderuntime.agent.kube_client import Access, InstanceApi
from noderuntime.agent.loop import Loop
from noderuntime.agent.report import HandlerState, NodeState

_VERSION = "0.3.0"
_RETRY_SECONDS = 5.0

Report = Callable[[NodeState], Awaitable[None]]


class SharedAccess(Access):
    """A pod's access whose TLS context all agents of this process share, to save memory."""

    _contexts: dict[Access, ssl.SSLContext] = {}  # noqa: RUF012 - frozen dataclass, no field

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context of this API server."""
        known = self._contexts.get(self)
        return known or self._contexts.setdefault(self, super().tls())  # type: ignore[arg-type]


@dataclass
class Journal:
    """What the agents of this process did, by the machine's clock in seconds."""

    last_report: float = 0.0
    reports: int = 0
    reads: list[float] = field(default_factory=list)
    """The time of each successful read of an instance, which begins a watch."""
    watching: int = 0


class RecordingApi(InstanceApi):
    """The agents' client; it records what succeeded."""

    def __init__(self, access: Access, node: str, journal: Journal) -> None:
        super().__init__(access, node)
        self._journal = journal
        self.phase: str | None = None
        """The phase that was reported last."""

    async def patch_status(self, status: dict[str, Any]) -> dict[str, Any]:
        """Apply a merge patch to the status and return the instance."""
        found = await super().patch_status(status)
        self.phase = status["phase"]
        self._journal.reports += 1
        self._journal.last_report = time.time()
        return found

    async def follow(self) -> AsyncGenerator[dict[str, Any] | None]:
        """Yield the instance now and whenever it changes."""
        watching = False
        async with aclosing(super().follow()) as bodies:
            try:
                async for body in bodies:
                    if not watching:
                        watching = True
                        self._journal.watching += 1
                        self._journal.reads.append(time.time())
                    yield body
            finally:
                self._journal.watching -= watching


class SimulatedNode:
    """The node under an agent's loop: it has what the spec requires at once, or a broken handler."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.broken = False
        self._instance: Instance | None = None
        self._report: Report | None = None

    async def reconcile(self, instance: Instance, report: Report) -> NodeState:
        """Return the node's state."""
        self._instance, self._report = instance, report
        return self._state(instance)

    def release(self) -> None:
        """Do nothing: no other agent wants this node."""

    async def set_broken(self, broken: bool, api: RecordingApi) -> None:
        """Break or heal a handler, and report it until the API server has it."""
        self.broken = broken
        while self._instance is not None and self._report is not None and self.broken is broken:
            state = self._state(self._instance)
            await self._report(state)
            if api.phase == state.phase:
                return
            await asyncio.sleep(_RETRY_SECONDS)

    def _state(self, instance: Instance) -> NodeState:
        if instance.spec.state == "Removed":
            return NodeState(instance.generation, "Removed", "Removed", image=self.image)
        handlers = tuple(
            HandlerState(h.name, "Ready", "Proven", version="1.0") for h in instance.spec.handlers
        )
        if self.broken and handlers:
            first = HandlerState(
                handlers[0].name, "Broken", "CanaryFailed", "the canary sandbox exited with 1"
            )
            handlers = (first, *handlers[1:])
        waits = instance.spec.image not in (None, self.image)  # for an agent of that image
        return NodeState(
            generation=None if waits else instance.generation,
            phase="Degraded" if self.broken else "Ready",
            reason="HandlerBroken" if self.broken else "Proven",
            image=self.image,
            digest=self.image.rpartition(":")[2],
            version=_VERSION,
            kubelet="Noderuntime",
            configured_by="FlagsFile",
            upstream_socket="/run/containerd/containerd.sock",
            switched_reason="KubeletOnNoderuntime",
            handlers=handlers,
        )


class Agent:
    """One running agent."""

    def __init__(self, access: Access, node: str, image: str, journal: Journal) -> None:
        self.node = SimulatedNode(image)
        self.api = RecordingApi(access, node, journal)
        self._task = asyncio.create_task(Loop(self.api, self.node).run())  # type: ignore[arg-type]

    async def set_broken(self, broken: bool) -> None:
        """Break or heal a handler."""
        await self.node.set_broken(broken, self.api)

    async def stop(self) -> None:
        """Stop the agent, like the end of its pod."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.api.close()
