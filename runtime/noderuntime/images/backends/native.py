"""The native image backend: pulls, unpacks and stores images itself, for nodes without containerd.

Lists and lookups use memory only. Verbs that change something complete even if their caller is cancelled,
except for a pull, which is cancelled with its last caller.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.blocking import on_files
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError, NotFound, PermissionDenied
from noderuntime.core.tasks import Work
from noderuntime.core.undo import Undo
from noderuntime.images.archive import reader as archive
from noderuntime.images.backends.layer_pull import Unpacker
from noderuntime.images.backends.pull import Puller
from noderuntime.images.base import Image, SnapshotUsage
from noderuntime.images.credentials import Credentials
from noderuntime.images.progress import Progress, PullCounters, Watch
from noderuntime.images.reference import DOCKER, candidates
from noderuntime.images.remote import Remote
from noderuntime.images.store.image_records import Snapshot, StoredImage
from noderuntime.images.store.lookup import Lookup
from noderuntime.images.store.store import Store
from noderuntime.node.host.base import UserNamespace
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS, Limits

_log = log.get(__name__)

_SETTLE_SECONDS = 5.0
"""Delay between a pull and the sync of its layers, so that it does not slow down the next pull."""
_TIDY_SECONDS = 3600.0
"""Interval of the garbage collection of interrupted pulls."""
_DRAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FsInfo:
    """Disk usage of images, and the capacity of their filesystem."""

    path: str
    """The store's directory (CRI ``fs_id``)."""
    used_bytes: int
    inodes_used: int
    capacity_bytes: int
    available_bytes: int


class NativeBackend:
    """:class:`noderuntime.images.base.ImageBackend` over the daemon's own store, with CRI's image RPCs."""

    def __init__(
        self,
        store: Store,
        remote: Remote,
        unpacker: Unpacker,
        *,
        search: Sequence[str] = (DOCKER,),
        pinned: Collection[str] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Use an open store, a registry client and unpackers. They are closed with the backend.

        ``search`` are the registries to try for names without a registry. ``pinned`` are the tags or digests
        of images that the kubelet must not remove to free space. ``limits`` hold for each image.
        """
        self._store = store
        self._remote = remote
        self._unpacker = unpacker
        self._puller = Puller(store, unpacker)
        self.configure(search, pinned, limits)
        self._work = Work()
        self._loop = asyncio.get_running_loop()
        self._tidying = self._loop.call_later(_SETTLE_SECONDS, self._tidy_now)

    def configure(
        self, search: Sequence[str], pinned: Collection[str], limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """Use other registries, pinned names and limits from now on. InvalidArgument changes nothing."""
        self._lookup = Lookup(self._store.catalog, tuple(search), pinned)
        self._puller.limits = limits
        self._search = tuple(search)

    # For containers

    async def image(self, ref: str) -> Image:
        """Return the image with an ID, tag or digest. NotFound if the node does not have it."""
        found = self.status(ref)
        if found is None:
            raise NotFound(f"image {ref[:200]!r} is not on this node")
        return found

    async def prepare(
        self,
        key: str,
        image: Image,
        target: Path,
        labels: Mapping[str, str],
        user: UserNamespace | None = None,
    ) -> None:
        """Create a snapshot of the image and mount it. Both are removed after an error.

        FailedPrecondition if the image was removed meanwhile, AlreadyExists if the key is in use. The
        labels are ignored.
        """
        layers = self._stack(image)
        snapshot = Snapshot(key, str(target), image.chain_id, writable=True)
        await self._store.catalog.add_snapshot(snapshot)
        async with Undo(f"snapshot {key}") as undo:
            undo.add("record", lambda: self._store.catalog.drop_snapshot(snapshot))
            undo.add("snapshot", lambda: self._store.snapshotter.release(key, target))
            await self._store.snapshotter.prepare(key, layers, target, user)

    async def volume(self, key: str, image: Image, target: Path, sub_path: str = "") -> Path:
        """Mount an image read-only for a container and return the path in it.

        :meth:`release` of the container unmounts it. NotFound if the path does not exist, other errors as
        :meth:`prepare`.
        """
        layers = self._stack(image)
        snapshot = Snapshot(key, str(target), image.chain_id, writable=False)
        await self._store.catalog.add_snapshot(snapshot)
        async with Undo(f"image volume of {key}") as undo:
            undo.add("record", lambda: self._store.catalog.drop_snapshot(snapshot))
            undo.add("mount", lambda: self._store.snapshotter.unmount(target))
            return await self._store.snapshotter.view(layers, target, sub_path)

    async def release(self, key: str, target: Path) -> None:
        """Unmount the target and the container's image volumes, and remove the snapshot. Idempotent."""
        await self._work.finish(self._release(key, target), name=f"release snapshot {key}")

    async def keys(self) -> set[str]:
        """Return the IDs of the containers with a snapshot or an image volume."""
        return {snapshot.key for snapshot in self._store.catalog.snapshots()}

    async def usage(self, key: str) -> SnapshotUsage:
        """Return a writable layer's disk usage. It walks the files, so do not call it in a List RPC."""
        return SnapshotUsage(*await self._store.snapshotter.usage(key))

    async def filesystem(self) -> str:
        """Return the store's directory."""
        return str(self._store.root)

    async def close(self) -> None:
        """Finish pending work and release the store. Cancel pulls before."""
        self._tidying.cancel()
        await self._work.drain(_DRAIN_SECONDS)
        await self._unpacker.close()
        await self._remote.close()
        await self._store.close()

    # CRI's ImageService

    async def pull(
        self, text: str, credentials: Credentials | None = None, watch: Watch | None = None
    ) -> str:
        """Pull the image of a reference (CRI PullImage) and return its ID.

        For a name without a registry, the registries of ``search`` are tried in order; the credentials are
        for the first one only. Errors as in :mod:`noderuntime.images.remote`.
        """
        failures: list[NoderuntimeError] = []
        for reference in candidates(text, self._search):
            given = None if failures else credentials
            try:
                return await self._puller.pull(self._remote, reference, given, watch=watch)
            except (NotFound, PermissionDenied) as error:
                failures.append(error)
            finally:
                self._tidy_soon()
        raise type(failures[-1])("; ".join(map(str, failures)))

    def registry_of(self, text: str) -> str:
        """Return the first registry to try for a reference. InvalidArgument if it is not a reference."""
        return candidates(text, self._search)[0].registry

    async def config(self, image: Image) -> bytes:
        """Return an image's config as stored in the registry. NotFound if the image was removed meanwhile."""
        raw = await self._store.content.get(image.id)
        if raw is None:
            raise NotFound(f"image {image.id} was removed from this node")
        return raw

    async def load(self, path: Path) -> list[str]:
        """Load all images of a ``docker save`` archive or an OCI layout and return their IDs.

        InvalidArgument or DataLoss if the archive is damaged.
        """
        async with archive.opened(path, self._store.root, self._puller.limits) as images:
            try:
                return [
                    await self._puller.pull(image.remote, image.reference, names=image.names)
                    for image in images
                ]
            finally:
                self._tidy_soon()

    def list_images(self, text: str = "") -> list[Image]:
        """Return all images, or only the one with an ID, tag or digest (CRI ListImages)."""
        if not text:
            return self._lookup.all()
        found = self._lookup.one(text)
        return [found] if found else []

    def status(self, text: str) -> Image | None:
        """Return the image with an ID, a unique prefix of one, a tag or a digest (CRI ImageStatus).

        InvalidArgument for an ambiguous prefix, and for text that can be none of these.
        """
        return self._lookup.one(text)

    async def remove(self, text: str) -> None:
        """Remove an image and all its names, if it exists (CRI RemoveImage).

        Running containers keep their layers.
        """
        found = self._lookup.stored(text)
        if found is not None:
            await self._work.finish(self._remove(found), name="remove an image")

    async def fs_info(self) -> FsInfo:
        """Return the disk usage of images (CRI ImageFsInfo), without the writable layers of containers."""
        root = self._store.root
        size, files = await self._store.content.size()
        disk = await on_files("measure the images' filesystem", lambda: os.statvfs(root), abandon=True)
        layers = self._store.catalog.layers()
        return FsInfo(
            path=str(root),
            used_bytes=size + sum(layer.bytes for layer in layers),
            inodes_used=files + sum(layer.inodes for layer in layers),
            capacity_bytes=disk.f_blocks * disk.f_frsize,
            available_bytes=disk.f_bavail * disk.f_frsize,
        )

    def pulls(self) -> list[Progress]:
        """Return the running pulls."""
        return self._puller.running()

    @property
    def counters(self) -> PullCounters:
        """The counters of all pulls."""
        return self._puller.counters

    def _stack(self, image: Image) -> list[int]:
        """Return the layers of an image. FailedPrecondition if it was removed meanwhile."""
        layers = self._store.catalog.stack(image.chain_id)
        if image.chain_id and not layers:
            raise FailedPrecondition(f"image {image.id} was removed from this node: pull it again")
        return layers

    async def _release(self, key: str, target: Path) -> None:
        async with self._work.lock(key):
            snapshots = self._store.catalog.snapshots(key)
            for snapshot in snapshots:
                if not snapshot.writable:
                    await self._store.snapshotter.unmount(Path(snapshot.target))
                    await self._store.catalog.drop_snapshot(snapshot)
            await self._store.snapshotter.release(key, target)
            for snapshot in snapshots:
                if snapshot.writable:
                    await self._store.catalog.drop_snapshot(snapshot)
        if snapshots and self._store.catalog.unused(lambda _: False):
            await self._collect()

    async def _remove(self, image: StoredImage) -> None:
        """Remove files before rows: on a full disk the catalog may have no room for the change."""
        self._store.catalog.take_image(image.id)
        try:
            await self._store.collector.collect()
        finally:
            await self._store.catalog.drop_image(image.id)
        _log.info("image removed", image=image.id)

    async def _collect(self) -> None:
        try:
            await self._store.collector.collect()
        except NoderuntimeError as error:
            _log.error("garbage collection failed", error=error)

    def _tidy_soon(self) -> None:
        if self._tidying.when() > self._loop.time() + _SETTLE_SECONDS:
            self._tidying.cancel()
            self._tidying = self._loop.call_later(_SETTLE_SECONDS, self._tidy_now)

    def _tidy_now(self) -> None:
        self._work.background(self._tidy(), name="collect garbage of images")
        self._tidying = self._loop.call_later(_TIDY_SECONDS, self._tidy_now)

    async def _tidy(self) -> None:
        try:
            await self._store.settle()
        except NoderuntimeError as error:
            _log.error("layers cannot be synced to disk", error=error)
        await self._collect()
