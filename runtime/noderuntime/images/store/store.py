"""The image store: all data of images, in one directory that one daemon uses."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument, NotFound
from noderuntime.images import oci
from noderuntime.images.base import ImageConfig
from noderuntime.images.store.catalog import Catalog
from noderuntime.images.store.content import Content
from noderuntime.images.store.gc import Collector
from noderuntime.node.host.base import Host
from noderuntime.node.snapshots.base import Snapshotter
from noderuntime.node.snapshots.overlay import Overlay


@dataclass(frozen=True, slots=True)
class Store:
    """An open image store. Created by :func:`open_store`."""

    root: Path
    catalog: Catalog
    content: Content
    snapshotter: Snapshotter
    collector: Collector

    async def settle(self) -> None:
        """Sync and measure the unpacked layers. Until then a power cut undoes their pull."""
        unsettled = [layer.number for layer in self.catalog.layers() if layer.boot]
        if not unsettled:
            return
        await self.snapshotter.sync()
        measured = {}
        for number in unsettled:
            with suppress(NotFound):  # removed meanwhile
                measured[number] = await self.snapshotter.layer_usage(number)
        await self.catalog.settle(measured)

    async def close(self) -> None:
        """Finish pending writes and release the store's lock."""
        await self.catalog.close()


async def open_store(root: Path, host: Host, boot: str) -> Store:
    """Open the store in a directory, which is created if needed, and make disk and catalog consistent.

    ``boot`` identifies the current boot of the machine. FailedPrecondition if another daemon has it open, a
    newer version wrote it, or its catalog is damaged.
    """
    store = await FILES.run(_open, root, host, boot)
    try:
        await store.collector.start()
    except BaseException:
        await store.close()
        raise
    return store


def _open(root: Path, host: Host, boot: str) -> Store:
    snapshotter, content = Overlay(host, root), Content(root)

    def config_of(image_id: str) -> ImageConfig | None:
        raw = content.read(image_id)
        try:
            return None if raw is None else oci.container_defaults(oci.read(oci.Config, raw))
        except InvalidArgument:
            return None

    catalog = Catalog(root / "images.db", lambda: snapshotter.find().layers, boot, config_of)
    return Store(root, catalog, content, snapshotter, Collector(catalog, content, snapshotter))
