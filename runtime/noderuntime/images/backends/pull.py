"""Pulls images: from a reference to an image whose layers are unpacked.

    reference ──resolve──► manifest for this machine ──► config
                                    └──► layers, several in parallel: download and unpack, commit

A layer is committed after its parent, because attributes of its directories depend on it. Layers in the
store are not fetched again. After an error, incomplete parts are removed, or kept for the retry as
:mod:`noderuntime.images.store.gc` documents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import ExitStack
from time import monotonic

from noderuntime.core import errors, log
from noderuntime.core.blocking import on_files
from noderuntime.core.errors import InvalidArgument, NoderuntimeError, ResourceExhausted, Unavailable
from noderuntime.core.tasks import Joint, concurrently
from noderuntime.images import oci
from noderuntime.images import platforms as choice
from noderuntime.images.backends.layer_pull import LayerPlan, LayerPuller, Source, Unpacker, Wanted
from noderuntime.images.credentials import Credentials
from noderuntime.images.progress import LayerProgress, Progress, PullCounters, Watch
from noderuntime.images.reference import Reference
from noderuntime.images.remote import Descriptor, Remote
from noderuntime.images.store.image_records import Name, StoredImage
from noderuntime.images.store.store import Store
from noderuntime.node.layers.decompress import check_media_type
from noderuntime.node.layers.room import check_free_disk
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS, Limits

_log = log.get(__name__)


class Puller:
    """Pulls images into a store. Use it on one event loop."""

    def __init__(self, store: Store, unpacker: Unpacker) -> None:
        self.counters = PullCounters()
        self.limits = DEFAULT_LIMITS
        """Limits of the pulls that start from now on. ``size`` is that of all layers of an image."""
        self._store = store
        self._layers = LayerPuller(store, unpacker, self._count)
        self._joint: Joint[str] = Joint("pull an image")
        self._progress: dict[Hashable, Progress] = {}

    async def pull(
        self,
        remote: Remote,
        reference: Reference,
        credentials: Credentials | None = None,
        *,
        watch: Watch | None = None,
        names: Sequence[str] | None = None,
    ) -> str:
        """Pull an image and return its ID. Concurrent calls for the same image share one pull.

        ``names`` are the names of the image in the store, by default those of the reference and its digest.
        Errors as in :mod:`noderuntime.images.remote`; FailedPrecondition and HostError for those of the node.
        """
        key = (id(remote), reference, credentials)
        if key not in self._joint:
            self._progress[key] = Progress(str(reference))
        progress = self._progress[key]
        watchers = [watch] if watch else []
        progress.watchers += watchers
        source = Source(remote, reference, credentials)
        pull = _Pull(self._store, self._layers, source, progress, names=names, limits=self.limits)
        try:
            return await self._joint.do(key, lambda: self._counted(pull))
        finally:
            for one in watchers:
                progress.watchers.remove(one)
            if key not in self._joint:
                self._progress.pop(key, None)

    def running(self) -> list[Progress]:
        """Return the running pulls."""
        return list(self._progress.values())

    async def _counted(self, pull: _Pull) -> str:
        begin = monotonic()
        reason = "Cancelled"
        try:
            image_id = await pull.run()
            reason = ""
            return image_id
        except NoderuntimeError as error:
            reason = _kind(error)
            raise
        finally:
            self.counters.seconds += monotonic() - begin
            if reason:
                self.counters.failed[reason] += 1
            else:
                self.counters.succeeded += 1

    def _count(self, received: int) -> None:
        self.counters.received += received


class _Pull:
    """One pull of one image."""

    def __init__(
        self,
        store: Store,
        layers: LayerPuller,
        source: Source,
        progress: Progress,
        *,
        names: Sequence[str] | None,
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._store = store
        self._layers = layers
        self._source = source
        self._reference = source.reference
        self._progress = progress
        self._given_names = names
        self._plans: list[LayerPlan] = []
        self._documents: dict[str, bytes] = {}
        self._missing: set[str] = set()
        """Digests of the documents that the store does not have yet."""

    async def run(self) -> str:
        """Pull the image and return its ID. After an error only parts that a retry can use are kept."""
        begin = monotonic()
        try:
            image_id = await self._run()
        except NoderuntimeError as error:
            _log.warning("pull failed", image=self._reference, reason=_kind(error), error=error)
            if not isinstance(error, Unavailable):
                await self._clean_up(error)
            raise _naming(self._reference, error) from error
        received = sum(layer.received for layer in self._progress.layers)
        ms = int((monotonic() - begin) * 1000)
        _log.info("pulled", image=self._reference, id=image_id, received=received, ms=ms)
        return image_id

    async def _run(self) -> str:
        target = await self._source.remote.resolve(self._reference, self._source.credentials)
        known = self._store.catalog.of_target(target.digest)
        image = self._store.catalog.image(known.image_id) if known else None
        if known and image:
            await self._store.catalog.add_image(image, self._names(target.digest, known.manifest, image.id))
            return image.id
        with ExitStack() as held:
            held.enter_context(self._store.catalog.hold(target.digest))
            manifest, raw = await self._manifest(target, held)
            return await self._image(target, manifest, raw, held)

    async def _manifest(self, target: Descriptor, held: ExitStack) -> tuple[Descriptor, bytes]:
        """Return the manifest for this machine, through an index if needed."""
        raw = await self._document(target, self._source.remote.manifest)
        if target.media_type in oci.MANIFEST_TYPES:
            return target, raw

        async def fetch(entry: oci.Descriptor) -> bytes:
            held.enter_context(self._store.catalog.hold(entry.digest))
            return await self._document(_descriptor(entry), self._source.remote.manifest)

        chosen, raw = await choice.manifest_in(raw, fetch)
        return _descriptor(chosen), raw

    async def _image(self, target: Descriptor, manifest: Descriptor, raw: bytes, held: ExitStack) -> str:
        config_descriptor = _descriptor(oci.read(oci.Manifest, raw).config)
        held.enter_context(self._store.catalog.hold(config_descriptor.digest))
        await concurrently(
            self._document(config_descriptor, self._source.remote.document),
            self._layers.expect(),
            name="fetch a config",
        )
        config = oci.read(oci.Config, self._documents[config_descriptor.digest])
        self._plans = _plans(oci.read(oci.Layers, raw).layers, config)
        held.enter_context(self._store.catalog.hold(*(plan.chain_id for plan in self._plans)))
        await self._check_space()
        self._progress.layers += [
            LayerProgress(plan.descriptor.digest, plan.descriptor.size) for plan in self._plans
        ]
        self._progress.changed()
        wanted = Wanted(self._source, self._plans, self._progress, self._limits)
        await concurrently(self._layers.fetch(wanted), self._keep_documents(), name="fetch an image")
        chain_id = self._plans[-1].chain_id if self._plans else ""
        size = sum(layer.size for layer in self._store.catalog.chain(chain_id))
        size += sum(map(len, self._documents.values()))
        image = StoredImage(config_descriptor.digest, chain_id, size, oci.container_defaults(config))
        await self._store.catalog.add_image(image, self._names(target.digest, manifest.digest, image.id))
        return image.id

    async def _document(self, descriptor: Descriptor, fetch: _Fetch) -> bytes:
        """Return a document from the store, or fetch it."""
        raw = await self._store.content.get(descriptor.digest)
        if raw is None:
            raw = await fetch(self._reference, descriptor, self._source.credentials)
            self._missing.add(descriptor.digest)
        self._documents[descriptor.digest] = raw
        return raw

    async def _keep_documents(self) -> None:
        for digest in self._missing:
            await self._store.content.put(digest, self._documents[digest])

    async def _check_space(self) -> None:
        """Raise ResourceExhausted if the disk has no room for the compressed layers alone."""
        missing = {
            plan.descriptor.digest: plan.descriptor.size
            for plan in self._plans
            if self._store.catalog.layer(plan.chain_id) is None
        }
        needed, root = sum(missing.values()), str(self._store.root)
        await on_files(
            "measure free disk space", lambda: check_free_disk(root, self._limits.free_disk, needed)
        )

    def _names(self, target: str, manifest: str, image_id: str) -> list[Name]:
        names = self._given_names
        if names is None:
            names = (self._reference.stored, f"{self._reference.name}@{target}")
        return [Name(name, image_id, target, manifest) for name in names]

    async def _clean_up(self, error: NoderuntimeError) -> None:
        """Remove the layers of this pull, or after a full disk those of all interrupted pulls."""
        disk_full = isinstance(error, ResourceExhausted)
        started = {key for plan in self._plans for key in (plan.chain_id, plan.descriptor.digest)}
        try:
            await self._store.collector.collect(lambda key: disk_full or key in started)
        except NoderuntimeError as failure:
            _log.error("garbage collection after a failed pull failed", error=failure)


_Fetch = Callable[[Reference, Descriptor, Credentials | None], Awaitable[bytes]]


def _descriptor(found: oci.Descriptor) -> Descriptor:
    return Descriptor(found.media_type, found.digest, found.size)


def _plans(layers: Sequence[oci.Descriptor], config: oci.Config) -> list[LayerPlan]:
    """Return the layers of a manifest and its config. InvalidArgument if they do not match."""
    diff_ids = config.rootfs.diff_ids
    if len(layers) != len(diff_ids):
        raise InvalidArgument(
            f"not a container image: {len(layers)} layers in its manifest, {len(diff_ids)} in its config"
        )
    plans: list[LayerPlan] = []
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        check_media_type(layer.media_type)
        parent = plans[-1].chain_id if plans else ""
        plans.append(LayerPlan(_descriptor(layer), diff_id, oci.chain_above(parent, diff_id), parent))
    return plans


def _kind(error: NoderuntimeError) -> str:
    """Return the name of an error's class in the tree of :mod:`noderuntime.core.errors`."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def _naming(reference: Reference, error: NoderuntimeError) -> NoderuntimeError:
    """Return the error with the image's name in its message."""
    prefix = f"image {reference}: "
    if str(error).startswith(prefix) or isinstance(error, errors.Internal):
        return error
    kind: type[NoderuntimeError] = getattr(errors, _kind(error))
    return kind(prefix + str(error))
