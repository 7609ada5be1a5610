"""The agent's loop: watches the instance, reconciles the node and reports the status.

A failure of one task does not stop the others. While the API server is unavailable, the node is
reconciled with the last known spec. When reconciling fails, it is reported and retried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

from noderuntime.agent.instance import Instance, parse, unsupported
from noderuntime.agent.kube_client import InstanceApi
from noderuntime.agent.node import Node
from noderuntime.agent.report import NodeState, is_others, status
from noderuntime.agent.switch.journal import now
from noderuntime.core import log, tasks
from noderuntime.core.backoff import Backoff, jittered
from noderuntime.core.errors import InvalidArgument, NoderuntimeError, NotFound, PermissionDenied

_log = log.get(__name__)

REFRESH_SECONDS = 600.0
_READY_SECONDS = 60.0
_UNSETTLED_SECONDS = 10.0
BACKOFF_SECONDS = (30.0, 60.0)
"""The pauses before the watch begins again. Already the first one is long: an API server that restarts loses
the watches of all agents at once, and an agent reconciles its node with the last known spec meanwhile."""
REFUSED_SECONDS = 600.0
"""How long the API server can refuse the token: the kubelet may be late to replace an expired one."""
_REFUSED = (
    "the API server has refused the agent's token for {:.0f} minutes (its ServiceAccount may have been"
    " deleted and created again): delete this pod, so that it gets a new token; last answer: {}"
)


class Loop:
    """The loop of one agent."""

    def __init__(
        self,
        api: InstanceApi,
        node: Node,
        backoff: Backoff | None = None,
        refused_seconds: float = REFUSED_SECONDS,
    ) -> None:
        self._api = api
        self._node = node
        self._backoff = backoff or Backoff(*BACKOFF_SECONDS)
        self._refused_seconds = refused_seconds
        self._instance: Instance | None = None
        self._status: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._reported: NodeState | None = None
        self._unsent = False
        """Whether the API server did not accept the last report: it is sent again when the watch is back."""
        self._refresh_due = 0.0
        self.progressed = time.monotonic()
        """Time of the last progress, in seconds of time.monotonic(). For the liveness probe."""
        self.state: NodeState | None = None
        """The node's state after the last reconciliation."""
        self.reported_at = 0.0
        """When the API server accepted a status last, in seconds of time.time(); 0: never."""

    @property
    def settled(self) -> bool:
        """Whether the last reconciliation ended in the desired state. For the readiness probe."""
        return self.state is not None and self.state.phase in ("Ready", "Removed")

    async def run(self) -> None:
        """Run until cancelled. The node stays unchanged then.

        Raises PermissionDenied if the API server refuses the pod's token for ten minutes.
        """
        try:
            await tasks.concurrently(self._watch(), self._reconcile_forever(), name="the agent's loop")
        finally:
            self._node.release()

    async def _watch(self) -> None:
        """Keep the instance up to date. Raises PermissionDenied if the token stays refused."""
        refused_since: float | None = None
        while True:
            try:
                async with aclosing(self._api.follow()) as bodies:
                    async for body in bodies:
                        self._store(body)
                        self._backoff.reset()
                        refused_since = None
                continue
            except PermissionDenied as error:
                moment = time.monotonic()
                refused_since = refused_since or moment
                if moment - refused_since > self._refused_seconds:
                    raise PermissionDenied(_REFUSED.format(self._refused_seconds / 60, error)) from error
                _log.warning("the API server refused the agent's token", error=error)
            except NotFound:
                self._store(None)
                refused_since = None
            except NoderuntimeError as error:
                _log.warning("watching the instance failed", error=error)
                refused_since = None
            await asyncio.sleep(self._backoff.next())

    def _store(self, body: dict[str, Any] | None) -> None:
        """Store the instance, and wake the reconcile loop if the desired state changed."""
        known = self._instance
        if body is None:
            self._instance = None
            if known is not None:
                _log.info("the instance was deleted; the node stays unchanged")
                self._changed.set()
            return
        try:
            instance = parse(body)
        except InvalidArgument as error:
            instance = unsupported(body, str(error))
        self._instance, self._status = instance, instance.status
        if known is None or _desired(known) != _desired(instance) or self._unsent:
            self._changed.set()

    async def _reconcile_forever(self) -> None:
        while True:
            self._changed.clear()
            pause = _UNSETTLED_SECONDS
            if self._instance is not None:
                state = await self._reconcile(self._instance)
                pause = pause_after(state.phase)
            else:
                self._node.release()
            self.progressed = time.monotonic()
            # Not wait_for: Python 3.11's ignores a cancellation that arrives together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(jittered(pause)):
                    await self._changed.wait()

    async def _reconcile(self, instance: Instance) -> NodeState:
        try:
            state = await self._node.reconcile(instance, self._report)
        except Exception:
            _log.exception("reconciling failed with an unexpected error")
            state = NodeState(instance.generation, "Failed", "InternalError", "see the agent's log")
        self.state = state
        await self._report(state)
        return state

    async def _report(self, state: NodeState) -> None:
        """Patch the status after a transition or when a refresh is due. The next call retries a failure."""
        self.progressed = time.monotonic()
        if is_others(state, self._status, now()):
            return
        outline = state.outline()
        if outline == self._reported and time.monotonic() < self._refresh_due:
            return
        if outline != self._reported:
            _log.info(
                "the node's state changed", phase=state.phase, reason=state.reason, message=state.message
            )
        try:
            body = await self._api.patch_status(status(state, self._status, now()))
        except NoderuntimeError as error:
            _log.warning("reporting the status failed", error=error)
            self._unsent = True
            return
        self._unsent = False
        self._status = body.get("status") or {}
        self._reported = outline
        self.reported_at = time.time()
        self._refresh_due = time.monotonic() + jittered(REFRESH_SECONDS)


def pause_after(phase: str) -> float:
    """Return the seconds until the node is reconciled again: a failure that healed is reported until then."""
    return _READY_SECONDS if phase == "Ready" else _UNSETTLED_SECONDS


def _desired(instance: Instance) -> tuple[object, ...]:
    """Return what the node must follow at once."""
    return instance.spec, instance.generation, instance.retry


def is_alive(loop: Loop, clock: Callable[[], float] = time.monotonic) -> bool:
    """Return whether the loop makes progress. A switch may take an hour (switchTimeoutSeconds <= 3600)."""
    return clock() - loop.progressed < 3900
