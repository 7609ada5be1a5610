"""One level-based loop: whatever happened, look at the world and do what is missing.

Events only say which NodeRuntime to look at. Wakes for one name are coalesced, looks at it never
overlap and keep a distance; a failed look is repeated with growing delays.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime

from noderuntime_operator.api import FINALIZER, NodeRuntimeStatus
from noderuntime_operator.apply import add_finalizer, apply, drop_finalizer, write_status
from noderuntime_operator.events import announce
from noderuntime_operator.kube import Kube, KubeError
from noderuntime_operator.observation import Observation, RuntimeView
from noderuntime_operator.observe import Caches, observe
from noderuntime_operator.rollout import Plan, nodes_to_search, plan
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.status import status

log = logging.getLogger(__name__)

DISTANCE = 0.5
HELD_SECONDS = 5.0
"""How often the pods are listed while something has to go: their end wakes nobody."""
UNSETTLED_SECONDS = 60.0
"""How often a NodeRuntime that is not Ready is looked at: that time passes is no event."""
RESYNC_SECONDS = 600.0
RETRY_SECONDS = (1.0, 60.0)
CACHE_SECONDS = 5.0


class Reconciler:
    """Looks at NodeRuntimes, one at a time."""

    def __init__(self, kube: Kube, caches: Caches, agent: AgentSettings) -> None:
        self._kube = kube
        self._caches = caches
        self._agent = agent
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._woken = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self.alive_at = self._clock()

    def wake(self, name: str, delay: float = DISTANCE) -> None:
        """Look at a NodeRuntime after the delay, or earlier when that was planned."""
        due = self._clock() + delay
        self._due[name] = min(due, self._due.get(name, due))
        self._woken.set()

    def wake_all(self) -> None:
        """Look at every NodeRuntime."""
        for name in self._caches.runtimes:
            self.wake(name)

    async def run(self) -> None:
        """Look at what is due, for ever."""
        while True:
            self.alive_at = now = self._clock()
            name = min(self._due, key=self._due.__getitem__, default=None)
            if name is not None and self._due[name] <= now:
                del self._due[name]
                await self._attempt(name)
                continue
            self._woken.clear()
            pause = min(self._due[name] - now, 10.0) if name is not None else 10.0
            try:
                await asyncio.wait_for(self._woken.wait(), pause)
            except TimeoutError:
                continue

    async def _attempt(self, name: str) -> None:
        """Reconcile once; whatever goes wrong is logged and tried again later."""
        try:
            self.wake(name, await self.reconcile(name))
            self._failures.pop(name, None)
        except _Gone:
            self._failures.pop(name, None)
        except KubeError as error:
            log.warning("reconcile refused", extra={"noderuntime": name, "error": str(error)})
            self._retry(name)
        except Exception:
            log.exception("reconcile failed", extra={"noderuntime": name})
            self._retry(name)

    def _retry(self, name: str) -> None:
        first, last = RETRY_SECONDS
        count = self._failures.get(name, 0)
        self._failures[name] = count + 1
        self.wake(name, min(last, first * 2 ** min(count, 10)) * random.uniform(0.8, 1.2))  # noqa: S311

    async def reconcile(self, name: str) -> float:
        """Bring the world one step nearer to the spec. Returns the seconds until the next look."""
        runtime = self._caches.runtime(name)
        if runtime is None or (runtime.deleting and FINALIZER not in runtime.finalizers):
            raise _Gone
        if not runtime.deleting and FINALIZER not in runtime.finalizers:
            await add_finalizer(self._kube, runtime)
            return DISTANCE
        seen = await observe(self._kube, self._caches, runtime)
        todo = plan(runtime, seen)
        try:
            written = await apply(self._kube, runtime, seen, todo, self._agent)
        except KubeError as error:
            if error.is_lasting:
                await self._report(runtime, seen, todo, refusal=str(error))
            raise
        new = await self._report(runtime, seen, todo)
        if todo.finished:
            await drop_finalizer(self._kube, runtime)
        await self._catch_up(written)
        settled = RESYNC_SECONDS if new.ready_nodes == new.desired_nodes else UNSETTLED_SECONDS
        pause = HELD_SECONDS if nodes_to_search(runtime, seen) else settled
        return pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing

    async def _report(
        self, runtime: RuntimeView, seen: Observation, todo: Plan, refusal: str = ""
    ) -> NodeRuntimeStatus:
        """Write the status, and announce what is new in it."""
        new = status(runtime, seen, todo, datetime.now(UTC), refusal)
        if await write_status(self._kube, runtime, new):
            await announce(self._kube, runtime, new)
        return new

    async def _catch_up(self, written: dict[str, int]) -> None:
        """Wait until the cache shows what was written: the next look must count these nodes as moving."""
        deadline = self._clock() + CACHE_SECONDS
        for name, generation in written.items():
            while self._clock() < deadline:
                known = self._caches.instance(name)
                if known is not None and known.generation >= generation:
                    break
                await asyncio.sleep(0.02)


class _Gone(Exception):
    """There is nothing to look at any more."""
