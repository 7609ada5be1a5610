"""A cache of one kind's objects, which a list fills and a watch keeps up to date.

::

    list in pages ──► watch from the list's resourceVersion ──► the stream ends
         ▲                  ▲                                        │
         │                  └── the last resourceVersion is known ◄──┤
         └───────── the API server no longer has it (410) ◄──────────┘

The cache holds views, built when an object arrives; nothing refers to the object itself. One page is in
memory at a time, so a cluster of any size is listed with the same memory. An object whose resourceVersion
is known is not parsed again. Objects that a list no longer contains were deleted while nothing watched.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from noderuntime_operator.backoff import Backoff
from noderuntime_operator.kube import Json, Kube, KubeError
from noderuntime_operator.metrics import Metrics

log = logging.getLogger(__name__)

WATCH_SECONDS = (300, 600)
"""Watches end at random times, so that an API server's clients do not return together."""
BACKOFF_SECONDS = (0.5, 5.0)
OUTAGE_SECONDS = 60.0
"""A longer time without the API server is an outage, in which agents cannot work either."""
GONE = 410


class Versioned(Protocol):
    """A view of an object; two views are equal if no decision depends on their difference."""

    @property
    def resource_version(self) -> str:
        """The object's resourceVersion."""


View = TypeVar("View", bound=Versioned)


def _name(body: Json) -> str:
    return str(body["metadata"]["name"])


class Informer(Generic[View]):
    """The views of one kind by name.

    view returns None for an object that is not cached. key returns an object's name in the cache.
    """

    def __init__(
        self,
        kube: Kube,
        kind: str,
        view: Callable[[Mapping[str, Any]], View | None],
        metrics: Metrics,
        *,
        key: Callable[[Json], str] = _name,
        field_selector: str = "",
        label_selector: str = "",
        backoff_seconds: tuple[float, float] = BACKOFF_SECONDS,
    ) -> None:
        self.kind = kind
        self.views: dict[str, View] = {}
        self.changed: Callable[[str, View | None, View | None], None] = lambda *_: None
        """Called with the name and the views before and after, unless they are equal; None means absent."""
        self.synced = asyncio.Event()
        """Set while the cache is complete: after a list, until the next list must begin."""
        self._kube = kube
        self._view = view
        self._metrics = metrics
        self._key = key
        self._selectors = (field_selector, label_selector)
        self._version = ""
        self._backoff = Backoff(*backoff_seconds)
        self._clock = asyncio.get_running_loop().time
        self.alive_at = self._clock()
        """When the watch last worked, or failed in a way that passes without a restart of the operator."""
        self.outage: tuple[float, float] | None = None
        """When the last long outage of the API server began and ended, in seconds of the loop's clock."""
        self.outage_seconds = OUTAGE_SECONDS
        self._down_at: float | None = None

    async def run(self) -> None:
        """Keep the cache up to date until cancelled."""
        while True:
            try:
                if not self.synced.is_set():
                    await self._list()
                await self._watch()
            except KubeError as error:
                await self._failed(error)
            except Exception:
                log.exception("watch failed", extra={"kind": self.kind})
                await self._failed(KubeError(GONE, "list again after an unexpected failure"))

    async def _failed(self, error: KubeError) -> None:
        """Wait before the next attempt, which is a list if the last resourceVersion cannot be used."""
        if error.status == GONE or error.is_lasting:
            self.synced.clear()
        else:
            self.alive_at = self._clock()
        if error.status != GONE and self._down_at is None:
            self._down_at = self._clock()
        delay = self._backoff.next()
        values = {"kind": self.kind, "status": error.status, "error": str(error), "seconds": round(delay, 1)}
        log.log(logging.INFO if error.status == GONE else logging.WARNING, "watch interrupted", extra=values)
        await asyncio.sleep(delay)

    async def _list(self) -> None:
        """Make the cache equal to the store: add, update, and forget what is no longer there."""
        seen: set[str] = set()
        token = await self._list_page("", seen)
        while token:
            token = await self._list_page(token, seen)
        for name in self.views.keys() - seen:
            self._forget(name)
        self.synced.set()
        self._metrics.relisted(self.kind)
        log.info("listed", extra={"kind": self.kind, "objects": len(self.views)})

    async def _list_page(self, token: str, seen: set[str]) -> str:
        """Cache one page, add its names to seen, and return the next page's token."""
        async with self._kube.one_page:
            page = await self._kube.page(self.kind, *self._selectors, token)
            for item in page.items:
                seen.add(self._key(item))
                self._store(item)
            self._version = page.resource_version
            self._answered()
            return page.next

    async def _watch(self) -> None:
        """Apply events until the stream ends."""
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - spreads load, needs no secrecy
        opened = self._clock()
        async with self._kube.watch(self.kind, self._version, seconds, *self._selectors) as events:
            self._answered()
            self.alive_at = opened
            async for event in events:
                self._apply(event)
                self.alive_at = self._clock()
                self._backoff.reset()
        if self.alive_at == opened:
            raise KubeError(0, "the watch ended without an event or a bookmark")

    def _answered(self) -> None:
        """Note that the API server serves."""
        self.alive_at = self._clock()
        if self._down_at is not None and self.alive_at - self._down_at > self.outage_seconds:
            self.outage = (self._down_at, self.alive_at)
        self._down_at = None

    def _apply(self, event: Json) -> None:
        """Apply one event of the watch."""
        body = event["object"]
        if event["type"] == "DELETED":
            self._forget(self._key(body))
        elif event["type"] != "BOOKMARK":
            self._store(body)
        self._version = body["metadata"]["resourceVersion"]

    def _store(self, body: Json) -> None:
        """Cache an object's view; one that cannot be understood keeps its old view."""
        name = self._key(body)
        old = self.views.get(name)
        if old is not None and old.resource_version == body["metadata"]["resourceVersion"]:
            return
        try:
            new = self._view(body)
        except (ValueError, LookupError, TypeError) as error:
            values = {"kind": self.kind, "object": name, "error": str(error)}
            log.warning("object ignored, because its form is unknown", extra=values)
            return
        if new is None:
            self._forget(name)
            return
        self.views[name] = new
        if new != old:
            self.changed(name, old, new)

    def _forget(self, name: str) -> None:
        old = self.views.pop(name, None)
        if old is not None:
            self.changed(name, old, None)
