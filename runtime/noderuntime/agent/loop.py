"""The agent's loop: follow the instance, turn the node, report. None of it needs the others to work.

The API server away: the node stays as it is, turns go on with the last spec that was seen.
The node broken: it is reported, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

from noderuntime.agent.instance import Instance, parse
from noderuntime.agent.kube_client import InstanceApi
from noderuntime.agent.node import Node
from noderuntime.agent.report import NodeState, status
from noderuntime.agent.switch.journal import now
from noderuntime.core import log
from noderuntime.core.errors import InvalidArgument, NoderuntimeError, NotFound

_log = log.get(__name__)

REFRESH_SECONDS = 600.0
_PROBE_SECONDS = {"Ready": 60.0, "Degraded": 30.0}
_UNSETTLED_SECONDS = 10.0
_BACKOFF_SECONDS = 5.0


class Loop:
    """One agent."""

    def __init__(self, api: InstanceApi, node: Node) -> None:
        self._api = api
        self._node = node
        self._instance: Instance | None = None
        self._status: dict[str, Any] = {}
        self._news = asyncio.Event()
        self._said: NodeState | None = None
        self._refresh_due = 0.0
        self.turned = time.monotonic()
        """When a turn ended last, in seconds of time.monotonic(); for the liveness probe."""
        self.settled = False
        """Whether the last turn left the node as its instance asks; for the readiness probe."""

    async def run(self) -> None:
        """Run until cancelled; everything on the node stays as it is then."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._turn_forever())

    async def _follow(self) -> None:
        """Keep the instance up to date: get, then watch, then again."""
        while True:
            try:
                body = await self._api.get()
                self._take(body)
                async for changed in self._api.watch(body["metadata"]["resourceVersion"]):
                    self._take(changed)
            except NotFound:
                if self._instance is not None:
                    _log.info("the instance is gone; the node stays as it is")
                self._instance = None
            except NoderuntimeError as error:
                _log.warning("the instance cannot be followed", error=error)
            await asyncio.sleep(_jittered(_BACKOFF_SECONDS))

    def _take(self, body: dict[str, Any]) -> None:
        """Remember an object; wake the loop when it asks for something else than before."""
        try:
            instance = parse(body)
        except InvalidArgument as error:
            _log.error("the instance is not understood", error=error)
            return
        known = self._instance
        self._instance, self._status = instance, instance.status
        if known is None or known.spec != instance.spec or known.generation != instance.generation:
            self._news.set()

    async def _turn_forever(self) -> None:
        while True:
            self._news.clear()
            pause = _UNSETTLED_SECONDS
            if self._instance is not None:
                state = await self._turn(self._instance)
                pause = _PROBE_SECONDS.get(state.phase, _UNSETTLED_SECONDS)
            self.turned = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _jittered(pause))

    async def _turn(self, instance: Instance) -> NodeState:
        try:
            state = await self._node.turn(instance, self._tell)
        except Exception:
            _log.exception("the turn failed in an unforeseen way")
            state = NodeState(instance.generation, "Failed", "InternalError", "see the agent's log")
        self.settled = state.phase in ("Ready", "Removed")
        await self._tell(state)
        return state

    async def _tell(self, state: NodeState) -> None:
        """Report a transition, or the refresh that is due; what cannot be sent is sent next time."""
        self.turned = time.monotonic()
        outline = state.outline()
        if outline == self._said and time.monotonic() < self._refresh_due:
            return
        if outline != self._said:
            _log.info("the node", phase=state.phase, reason=state.reason, message=state.message)
        try:
            body = await self._api.patch_status(status(state, self._status, now()))
        except NoderuntimeError as error:
            _log.warning("the status cannot be reported", error=error)
            return
        self._status = body.get("status") or {}
        self._said = outline
        self._refresh_due = time.monotonic() + _jittered(REFRESH_SECONDS)


def is_alive(loop: Loop, clock: Callable[[], float] = time.monotonic) -> bool:
    """Tell whether the loop turns: a switch may take its time, and an hour is the longest it is given."""
    return clock() - loop.turned < 3900


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.85, 1.15)  # noqa: S311 - spreads load, hides nothing
