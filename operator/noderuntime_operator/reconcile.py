"""The level-based reconcile loop: observe the cluster, plan, apply what is missing.

Events only select which NodeRuntime is reconciled. Wake-ups for one name are coalesced, reconciliations
never overlap and keep a minimum distance; a failed one is retried with growing delays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime

from noderuntime_operator.api.names import FINALIZER
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.apply import Applier, add_finalizer, drop_finalizer, write_status
from noderuntime_operator.backoff import Backoff
from noderuntime_operator.cluster_state import ClusterState, RuntimeView
from noderuntime_operator.events import post_events
from noderuntime_operator.kube import Kube, KubeError, NotLeader
from noderuntime_operator.metrics import Failure, Metrics
from noderuntime_operator.observe import Caches, observe, starting_agents
from noderuntime_operator.rollout import plan
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.status import status
from noderuntime_operator.views import runtime_view
from noderuntime_operator.writes import Writer

log = logging.getLogger(__name__)

DISTANCE = 1.0
"""Seconds between a change and its reconciliation: changes come in groups, and statuses are written once."""
STANDBY_SECONDS = 0.5
"""Interval at which the loop checks whether it may act."""
HELD_SECONDS = 5.0
"""Interval while something waits for pods to end: the end of a pod wakes nothing."""
STARTING_SECONDS = 15.0
"""Interval while agents' pods are not Ready: that an agent is late causes no event."""
UNSETTLED_SECONDS = 60.0
"""Interval while a NodeRuntime is not Ready: timeouts cause no event."""
RESYNC_SECONDS = 600.0
RETRY_SECONDS = (2.0, 60.0)
CACHE_SECONDS = 5.0


class Reconciler:
    """Reconciles NodeRuntimes, one at a time, while may_act returns True."""

    def __init__(
        self, kube: Kube, caches: Caches, agent: AgentSettings, may_act: Callable[[], bool], metrics: Metrics
    ) -> None:
        self._kube = kube
        self._metrics = metrics
        self._caches = caches
        self._agent = agent
        self._may_act = may_act
        self._due: dict[str, float] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._appliers: dict[str, Applier] = {}
        self._woken = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self.alive_at = self._clock()
        """When the loop last ran, or a reconciliation made progress: one of many writes can take minutes."""

    def wake(self, name: str, delay: float = DISTANCE) -> None:
        """Reconcile a NodeRuntime after the delay (seconds), or earlier if that was already planned."""
        due = self._clock() + delay
        self._due[name] = min(due, self._due.get(name, due))
        self._woken.set()

    async def run(self) -> None:
        """Reconcile NodeRuntimes when they are due, until cancelled."""
        acting = False
        while True:
            self._progressed()
            if self._may_act() and not acting:
                self.wake_all()
            acting = self._may_act()
            if not acting:
                await asyncio.sleep(STANDBY_SECONDS)
            elif (name := await self._next()) is not None:
                await self._attempt(name)

    def _progressed(self) -> None:
        """Note a sign of life."""
        self.alive_at = self._clock()

    def wake_all(self) -> None:
        """Reconcile every NodeRuntime now."""
        for name in self._caches.runtimes:
            self.wake(name, 0)

    async def _next(self) -> str | None:
        """Return a NodeRuntime that is due, after a pause None."""
        now = self._clock()
        name = min(self._due, key=self._due.__getitem__, default=None)
        if name is not None and self._due[name] <= now:
            del self._due[name]
            return name
        self._woken.clear()
        pause = min(self._due[name] - now, STANDBY_SECONDS) if name is not None else STANDBY_SECONDS
        # Not wait_for: Python 3.11's ignores a cancellation that arrives together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._woken.wait()
        return None

    async def _attempt(self, name: str) -> None:
        """Reconcile once; log a failure and schedule a retry."""
        try:
            with self._metrics.reconciling():
                pause = await self.reconcile(name)
        except _Gone:
            self._backoffs.pop(name, None)
            self._appliers.pop(name, None)
            self._metrics.ended(name)
        except NotLeader:
            log.info("reconciliation ended with the leadership", extra={"noderuntime": name})
            self.wake(name)
        except KubeError as error:
            log.warning("reconciliation failed", extra={"noderuntime": name, "error": str(error)})
            self._retry(name, "Refused" if error.is_lasting else "Unavailable")
        except Exception:
            log.exception("reconciliation failed", extra={"noderuntime": name})
            self._retry(name, "Internal")
        else:
            self._backoffs.pop(name, None)
            self.wake(name, pause)

    def _retry(self, name: str, reason: Failure) -> None:
        self._metrics.failed(reason)
        self.wake(name, self._backoffs.setdefault(name, Backoff(*RETRY_SECONDS)).next())

    async def reconcile(self, name: str) -> float:
        """Move the cluster one step towards the spec; return the seconds until the next reconciliation."""
        runtime = await self._read(name)
        if FINALIZER not in runtime.finalizers:
            await add_finalizer(self._kube, runtime)
            return DISTANCE
        cluster = await observe(self._kube, self._caches, runtime, self._agent)
        self._progressed()
        todo = plan(runtime, cluster)
        writer = Writer(self._clock, self._progressed)
        applier = self._appliers.setdefault(name, Applier(self._kube, self._agent, writer))
        written = await applier.apply(runtime, cluster, todo)
        outcome = applier.writer.finish()
        if outcome.failed:
            self._metrics.failed("Refused")
        new = status(runtime, cluster, todo, datetime.now(UTC), outcome.report)
        self._metrics.reported(name, new)
        if await write_status(self._kube, runtime, new):
            await post_events(self._kube, runtime, new)
        if todo.finished:
            await drop_finalizer(self._kube, runtime)
            return DISTANCE  # the next one notices that the NodeRuntime is gone
        await self._catch_up(written)
        pause = _pause(runtime, cluster, new) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, needs no secrecy
        return pause if outcome.due is None else min(pause, max(DISTANCE, outcome.due - self._clock()))

    async def _read(self, name: str) -> RuntimeView:
        """Return a NodeRuntime as it is stored: kopf's index keeps what was deleted while nothing watched."""
        body = await self._kube.get("NodeRuntime", name)
        runtime = runtime_view(body) if body else None
        if runtime is None or (runtime.deleting and FINALIZER not in runtime.finalizers):
            raise _Gone
        return runtime

    async def _catch_up(self, written: dict[str, int]) -> None:
        """Wait until the cache holds the written instances: the next plan must count them as moving."""
        deadline = self._clock() + CACHE_SECONDS
        cached = self._caches.instances.views
        for name, generation in written.items():
            while self._clock() < deadline:
                known = cached.get(name)
                if known is not None and known.generation >= generation:
                    break
                await asyncio.sleep(0.02)


def _pause(runtime: RuntimeView, cluster: ClusterState, new: NodeRuntimeStatus) -> float:
    """Return the seconds until the next reconciliation, if no event comes earlier."""
    old, canary = runtime.status, runtime.spec.update.canary
    if (old.current_revision, old.failed_revision) != (new.current_revision, new.failed_revision):
        return DISTANCE
    if cluster.searched or cluster.agent_pods:
        return HELD_SECONDS
    if new.wave and new.wave.phase == "Soaking" and new.wave.soaking_since and canary:
        since = datetime.fromisoformat(new.wave.soaking_since)
        return max(DISTANCE, canary.soak_seconds - (cluster.now - since).total_seconds())
    if starting_agents(runtime, cluster):
        return STARTING_SECONDS
    return RESYNC_SECONDS if new.ready_nodes == new.desired_nodes else UNSETTLED_SECONDS


class _Gone(Exception):
    """The NodeRuntime no longer exists."""
