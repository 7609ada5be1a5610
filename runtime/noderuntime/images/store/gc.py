"""The garbage collector: removes layers and documents that no image and no container needs.

Those of a removed image are removed at once, because images are removed to free space. Those of an
interrupted pull (layers without an image, partial layers) are kept for an hour for the retry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.images.store.catalog import Catalog
from noderuntime.images.store.content import Content
from noderuntime.images.store.image_records import Layer
from noderuntime.node.snapshots.base import Snapshotter

_log = log.get(__name__)

_GRACE_SECONDS = 3600.0


class Collector:
    """The garbage collector of one store."""

    def __init__(self, catalog: Catalog, content: Content, snapshotter: Snapshotter) -> None:
        self._catalog = catalog
        self._content = content
        self._snapshotter = snapshotter
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Make disk and catalog consistent, before the store is in use. Does not fail on a full disk."""
        numbers = [layer.number for layer in self._catalog.layers()]
        keys = {snapshot.key for snapshot in self._catalog.snapshots()}
        await self._snapshotter.sweep(numbers, keys)
        try:
            await self._catalog.forget_lost()
            await self.collect()
        except NoderuntimeError as error:
            _log.error("garbage collection failed at start", error=error)

    async def collect(self, is_abandoned: Callable[[str], bool] = lambda _: False) -> None:
        """Remove layers and documents that are not needed.

        ``is_abandoned`` returns for a digest or chain ID whether no pull will resume it. After an hour
        that is assumed.
        """
        async with self._lock:
            now = time.time()

            def abandoned(layer: Layer) -> bool:
                return now - layer.unfinished_at > _GRACE_SECONDS or is_abandoned(layer.chain_id)

            unused = self._catalog.take_unused(abandoned)
            for layer in unused:
                await self._remove(layer)
            documents = await self._content.drop_documents(self._catalog.needed_documents)
            partial = await self._content.drop_partial(
                lambda digest, age: age > _GRACE_SECONDS or is_abandoned(digest)
            )
            if unused:
                await self._catalog.drop_layers(unused)
            if unused or documents or partial:
                _log.info("garbage collected", layers=len(unused), documents=documents, partial=partial)

    async def _remove(self, layer: Layer) -> None:
        try:
            await self._snapshotter.remove_layer(layer.number)
        except NoderuntimeError as error:
            _log.error("layer cannot be removed before the next start", layer=layer.number, error=error)
