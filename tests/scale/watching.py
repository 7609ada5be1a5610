"""Watches of the test itself: the labels of Nodes, and the true number of Ready nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress

from scale.client import INSTANCES, NODES, Api, Json

_PREFIX = "handler.noderuntime.dev/"


class LabelGuard:
    """Records each handler label that a Node loses."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._labels: dict[str, frozenset[str]] = {}
        self.lost: list[str] = []
        self._task = asyncio.create_task(self._follow())

    def complete(self, handlers: int) -> int:
        """Return the number of Nodes that have labels of that many handlers."""
        if self._task.done():
            self._task.result()
        return sum(len(labels) == handlers for labels in self._labels.values())

    async def stop(self) -> None:
        """Stop watching."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _follow(self) -> None:
        async for kind, found in self._api.follow(NODES, metadata_only=True):
            if kind == "LIST":
                known = {item["metadata"]["name"] for item in found["items"]}
                for name in self._labels.keys() - known:
                    del self._labels[name]
            for item in found["items"] if kind == "LIST" else [found]:
                self._see(kind, item)

    def _see(self, kind: str, item: Json) -> None:
        name = item["metadata"]["name"]
        if kind == "DELETED":
            self._labels.pop(name, None)
            return
        now = frozenset(key for key in item["metadata"].get("labels") or {} if key.startswith(_PREFIX))
        gone = self._labels.get(name, frozenset()) - now
        if gone:
            self.lost.append(f"{name}: {', '.join(sorted(gone))}")
        self._labels[name] = now


class Truth:
    """What the instances say: how many are Ready, with its history, and how many change."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._ready: set[str] = set()
        self._changing: set[str] = set()
        self.most_changing = 0
        """The largest number of instances at once whose agents have not applied their spec."""
        self.failures = 0
        """How often an instance stopped being Ready."""
        self._last_seen: dict[int, float] = {}
        """By number: when it was true last."""
        self._task = asyncio.create_task(self._follow())

    async def __aenter__(self) -> Truth:
        while not self._last_seen:
            await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def lag(self, shown: int) -> float:
        """Return for how many seconds a shown number has not been true."""
        if shown == len(self._ready):
            return 0.0
        return time.monotonic() - self._last_seen.get(shown, -1e9)

    async def _follow(self) -> None:
        async for kind, found in self._api.follow(INSTANCES):
            if kind == "LIST":
                self._ready.clear()
                self._changing.clear()
            self._see(kind, found["items"] if kind == "LIST" else [found])

    def _see(self, kind: str, items: Iterable[Json]) -> None:
        self._last_seen[len(self._ready)] = time.monotonic()
        for item in items:
            name, status = item["metadata"]["name"], item.get("status") or {}
            changing = item["metadata"]["generation"] != status.get("observedGeneration")
            self._changing.discard(name)
            if kind != "DELETED" and status.get("phase") == "Ready":
                self._ready.add(name)
            elif name in self._ready:
                self._ready.remove(name)
                self.failures += 1
            if kind != "DELETED" and changing:
                self._changing.add(name)
        self._last_seen[len(self._ready)] = time.monotonic()
        self.most_changing = max(self.most_changing, len(self._changing))
