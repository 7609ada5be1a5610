"""The level-based reconcile loop: observe the cluster, plan, apply what is missing.

Events only select which NodeRuntime is reconciled. Wake-ups for one name are coalesced, reconciliations
never overlap and keep a minimum distance; a failed one is retried with growing delays.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime

from noderuntime_operator.api import FINALIZER, NodeRuntimeStatus
from noderuntime_operator.apply import add_finalizer, apply, drop_finalizer, write_status
from noderuntime_operator.cluster_state import ClusterState, RuntimeView
from noderuntime_operator.events import post_events
from noderuntime_operator.kube import Kube, KubeError
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.observe import Caches, observe, starting_agents
from noderuntime_operator.rollout import Plan, nodes_to_search, plan
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.status import status

log = logging.getLogger(__name__)

DISTANCE = 0.5
HELD_SECONDS = 5.0
"""Interval while something waits for pods to end: pods are not watched."""
STARTING_SECONDS = 15.0
"""Interval while agents' pods are not Ready: a failed pull of their image is not watched."""
UNSETTLED_SECONDS = 60.0
"""Interval while a NodeRuntime is not Ready: timeouts cause no event."""
RESYNC_SECONDS = 600.0
RETRY_SECONDS = (1.0, 60.0)
CACHE_SECONDS = 5.0


class Reconciler:
    """Reconciles NodeRuntimes, one at a time."""

    def __init__(self, kube: Kube, caches: Caches, agent: AgentSettings, metrics: Metrics) -> None:
        self._kube = kube
        self._metrics = metrics
        self._caches = caches
        self._agent = agent
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._woken = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self.alive_at = self._clock()

    def wake(self, name: str, delay: float = DISTANCE) -> None:
        """Reconcile a NodeRuntime after the delay (seconds), or earlier if that was already planned."""
        due = self._clock() + delay
        self._due[name] = min(due, self._due.get(name, due))
        self._woken.set()

    def wake_all(self) -> None:
        """Reconcile every NodeRuntime."""
        for name in self._caches.runtimes:
            self.wake(name)

    async def run(self) -> None:
        """Reconcile NodeRuntimes when they are due, until cancelled."""
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
        """Reconcile once; log a failure and schedule a retry."""
        try:
            with self._metrics.reconciling():
                pause = await self.reconcile(name)
            self.wake(name, pause)
            self._failures.pop(name, None)
        except _Gone:
            self._failures.pop(name, None)
            self._metrics.ended(name)
        except KubeError as error:
            log.warning("reconciliation failed", extra={"noderuntime": name, "error": str(error)})
            self._metrics.failed("Refused" if error.is_lasting else "Unavailable")
            self._retry(name)
        except Exception:
            log.exception("reconciliation failed", extra={"noderuntime": name})
            self._metrics.failed("Internal")
            self._retry(name)

    def _retry(self, name: str) -> None:
        first, last = RETRY_SECONDS
        count = self._failures.get(name, 0)
        self._failures[name] = count + 1
        self.wake(name, min(last, first * 2 ** min(count, 10)) * random.uniform(0.8, 1.2))  # noqa: S311

    async def reconcile(self, name: str) -> float:
        """Move the cluster one step towards the spec; return the seconds until the next reconciliation."""
        runtime = self._caches.runtime(name)
        if runtime is None or (runtime.deleting and FINALIZER not in runtime.finalizers):
            raise _Gone
        if not runtime.deleting and FINALIZER not in runtime.finalizers:
            await add_finalizer(self._kube, runtime)
            return DISTANCE
        cluster = await observe(self._kube, self._caches, runtime)
        todo = plan(runtime, cluster)
        try:
            written = await apply(self._kube, runtime, cluster, todo, self._agent)
        except KubeError as error:
            if error.is_lasting:
                await self._report(runtime, cluster, todo, refusal=str(error))
            raise
        new = await self._report(runtime, cluster, todo)
        if todo.finished:
            await drop_finalizer(self._kube, runtime)
            return DISTANCE  # the next one notices that the NodeRuntime is gone
        await self._catch_up(written)
        return _pause(runtime, cluster, new) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, needs no secrecy

    async def _report(
        self, runtime: RuntimeView, cluster: ClusterState, todo: Plan, refusal: str = ""
    ) -> NodeRuntimeStatus:
        """Write the status, post its changes as Events, and return it."""
        new = status(runtime, cluster, todo, datetime.now(UTC), refusal)
        self._metrics.reported(runtime.name, new)
        if await write_status(self._kube, runtime, new):
            await post_events(self._kube, runtime, new)
        return new

    async def _catch_up(self, written: dict[str, int]) -> None:
        """Wait until the cache holds the written instances: the next plan must count them as moving."""
        deadline = self._clock() + CACHE_SECONDS
        for name, generation in written.items():
            while self._clock() < deadline:
                known = self._caches.instance(name)
                if known is not None and known.generation >= generation:
                    break
                await asyncio.sleep(0.02)


def _pause(runtime: RuntimeView, cluster: ClusterState, new: NodeRuntimeStatus) -> float:
    """Return the seconds until the next reconciliation, if no event comes earlier."""
    if nodes_to_search(runtime, cluster):
        return HELD_SECONDS
    if starting_agents(runtime, cluster):
        return STARTING_SECONDS
    return RESYNC_SECONDS if new.ready_nodes == new.desired_nodes else UNSETTLED_SECONDS


class _Gone(Exception):
    """The NodeRuntime no longer exists."""
