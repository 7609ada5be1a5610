"""Find the pods that use a RuntimeClass on given nodes, without listing the cluster's pods again and again.

The pods of a few nodes are listed node by node. For many nodes, one list of all pods fills a cache, which a
watch keeps up to date until it has not been used for a while. Only pods that matter are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from noderuntime_operator.cluster_state import PodView
from noderuntime_operator.concurrency import for_each
from noderuntime_operator.informer import Informer
from noderuntime_operator.kube import Kube, KubeError
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.views import pod_view

NODE_BY_NODE = 50
"""For at most this many nodes the pods are listed node by node."""
LIST_SECONDS = 120.0
"""How long a reconciliation waits for the list of all pods. Then the next one waits."""
IDLE_SECONDS = 60.0
_UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"


class Pods:
    """The unfinished pods of a cluster that have a RuntimeClass and a node."""

    def __init__(self, kube: Kube, metrics: Metrics) -> None:
        self._kube = kube
        self._metrics = metrics
        self._informer: Informer[PodView] | None = None
        self._task: asyncio.Task[None] | None = None
        self._end: asyncio.TimerHandle | None = None
        self.idle_seconds = IDLE_SECONDS

    async def on(self, nodes: Collection[str]) -> list[PodView]:
        """Return the pods on these nodes. Raises KubeError if they cannot be listed (yet)."""
        if len(nodes) <= NODE_BY_NODE:
            return await self._listed(sorted(nodes))
        informer = self._watched()
        try:
            async with asyncio.timeout(LIST_SECONDS):
                await informer.synced.wait()
        except TimeoutError as error:
            raise KubeError(0, f"the pods were not listed within {LIST_SECONDS:.0f} s") from error
        finally:
            self._end_later()
        wanted = frozenset(nodes)
        return [pod for pod in informer.views.values() if pod.node in wanted]

    async def close(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listed(self, nodes: Sequence[str]) -> list[PodView]:
        """Return the pods of a few nodes, listed node by node."""
        return [pod for pods in await for_each(nodes, self._of) for pod in pods]

    async def _of(self, node: str) -> list[PodView]:
        bodies = self._kube.list("Pod", f"spec.nodeName={node},{_UNFINISHED}")
        return [view async for body in bodies if (view := pod_view(body))]

    def _watched(self) -> Informer[PodView]:
        """Return the cache of all pods, which exists until it has not been used for a while."""
        if self._end is not None:
            self._end.cancel()
        if self._informer is None or self._task is None or self._task.done():
            self._informer = Informer(
                self._kube, "Pod", pod_view, self._metrics, key=_key, field_selector=_UNFINISHED
            )
            self._task = asyncio.create_task(self._informer.run())
        return self._informer

    def _end_later(self) -> None:
        """End the cache after the idle time, which begins now: a list can take longer."""
        if self._task is not None:
            self._end = asyncio.get_running_loop().call_later(self.idle_seconds, self._task.cancel)


def _key(body: Mapping[str, Any]) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
