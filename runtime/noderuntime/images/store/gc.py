"""The collector: removes what no image and no container needs.

What a removed image had goes at once, because whoever removes images wants room. What a
pull that was cut off had done (layers that no image has yet, the beginnings of others) stays for an
hour, because it will be tried again soon; then nobody comes for it any more.
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
    """The collector of one store."""

    def __init__(self, catalog: Catalog, content: Content, snapshotter: Snapshotter) -> None:
        self._catalog = catalog
        self._content = content
        self._snapshotter = snapshotter
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Make disk and catalog agree, before anything is in use; never fails for a full disk."""
        numbers = [layer.number for layer in self._catalog.layers()]
        keys = {snapshot.key for snapshot in self._catalog.snapshots()}
        await self._snapshotter.sweep(numbers, keys)
        try:
            await self._catalog.forget_lost()
            await self.collect()
        except NoderuntimeError as error:
            _log.error("collecting failed at the start", error=error)

    async def collect(self, over: Callable[[str], bool] = lambda _: False) -> None:
        """Remove what is not needed.

        ``over`` tells by digest or chain ID whether an unfinished pull will not go on with a layer, as is
        taken for granted after an hour.
        """
        async with self._lock:
            now = time.time()

            def abandoned(layer: Layer) -> bool:
                return now - layer.unfinished_at > _GRACE_SECONDS or over(layer.chain_id)

            unused = self._catalog.take_unused(abandoned)
            for layer in unused:
                await self._remove(layer)
            documents = await self._content.drop_documents(self._catalog.needed_documents)
            partial = await self._content.drop_partial(
                lambda digest, age: age > _GRACE_SECONDS or over(digest)
            )
            if unused:
                await self._catalog.drop_layers(unused)
            if unused or documents or partial:
                _log.info("collected", layers=len(unused), documents=documents, partial=partial)

    async def _remove(self, layer: Layer) -> None:
        try:
            await self._snapshotter.remove_layer(layer.number)
        except NoderuntimeError as error:
            _log.error("a layer cannot be removed before the next start", layer=layer.number, error=error)
