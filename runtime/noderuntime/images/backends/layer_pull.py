"""Pulls the layers of an image: downloads and unpacks them at the same time, several in parallel.

A layer that two pulls need is fetched by the first one. If that fails, the other pull fetches it itself,
because its registry or credentials can differ.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from noderuntime.core import log
from noderuntime.core.errors import (
    DataLoss,
    InvalidArgument,
    NoderuntimeError,
    ResourceExhausted,
    Unimplemented,
)
from noderuntime.core.tasks import Joint, concurrently
from noderuntime.images.credentials import Credentials
from noderuntime.images.progress import LayerProgress, Progress
from noderuntime.images.reference import Reference
from noderuntime.images.remote import Descriptor, Hash, Remote
from noderuntime.images.store.image_records import Layer
from noderuntime.images.store.ingest import Ingest
from noderuntime.images.store.store import Store
from noderuntime.node.layers.growth import Blob
from noderuntime.node.layers.tar.limits import Limits, Unpacked

_log = log.get(__name__)

PER_IMAGE = 3
PER_NODE = 6
"""Limits on parallel downloads."""
_AT_WORK = 12
"""Limit on layers of a node that are downloaded, unpacked or wait for an unpacker; each needs descriptors."""


class Unpacker(Protocol):
    """An unpacker of layers; :class:`noderuntime.node.layers.pool.Unpackers` does it in worker processes."""

    async def expect(self) -> None:
        """Prepare for the layer of a pull that has started."""

    async def unpack(self, blob: Blob, target: Path, media_type: str, limits: Limits) -> Unpacked:
        """Unpack a layer into an empty directory. The blob can still be growing."""

    async def close(self) -> None:
        """Stop idle workers."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """A layer as described by manifest and config."""

    descriptor: Descriptor
    diff_id: str
    chain_id: str
    parent: str
    """Chain ID of the layer below; empty at the bottom."""


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of an image."""

    remote: Remote
    reference: Reference
    credentials: Credentials | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The layers of one pull."""

    source: Source
    plans: Sequence[LayerPlan]
    """Bottom first."""
    progress: Progress
    limits: Limits
    """``size`` is that of all layers together."""
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PER_IMAGE))

    def stage(self, index: int) -> LayerProgress:
        """Return the progress of a layer."""
        return self.progress.layers[index]


class _Damaged(Exception):
    """The bytes of an earlier pull are not a prefix of the layer."""


class LayerPuller:
    """Fetches layers for all pulls of a node."""

    def __init__(self, store: Store, unpacker: Unpacker, received: Callable[[int], None]) -> None:
        """Use a store. ``received`` is called with the number of bytes of each chunk."""
        self._store = store
        self._unpacker = unpacker
        self._received = received
        self._slots = asyncio.Semaphore(PER_NODE)
        self._at_work = asyncio.Semaphore(_AT_WORK)
        self._joint: Joint[Layer] = Joint("pull a layer")

    async def expect(self) -> None:
        """Prepare for the layers of a pull that has started."""
        await self._unpacker.expect()

    async def fetch(self, wanted: Wanted) -> None:
        """Fetch and unpack all missing layers. ResourceExhausted if together they exceed the limits."""
        limit, total = wanted.limits.size, 0

        async def fetch_one(index: int) -> None:
            nonlocal total
            layer = await self._layer(wanted, index)
            total += layer.size
            if total > limit:
                raise ResourceExhausted(
                    f"uncompressed, its layers exceed the limit of {limit} bytes (images.max_image_size)"
                )

        await concurrently(*(fetch_one(index) for index in range(len(wanted.plans))), name="fetch a layer")

    async def _layer(self, wanted: Wanted, index: int) -> Layer:
        chain_id = wanted.plans[index].chain_id
        while (layer := self._store.catalog.layer(chain_id)) is None:
            in_progress = chain_id in self._joint
            try:
                layer = await self._joint.do(chain_id, lambda: self._make(wanted, index))
                break
            except NoderuntimeError:
                if not in_progress:
                    raise
        wanted.stage(index).stage = "done"
        wanted.progress.changed()
        return layer

    async def _make(self, wanted: Wanted, index: int) -> Layer:
        try:
            return await self._attempt(wanted, index, restart=False)
        except _Damaged as damaged:
            digest = wanted.plans[index].descriptor.digest
            _log.info("bytes of an earlier pull are damaged, downloading again", layer=digest, error=damaged)
            return await self._attempt(wanted, index, restart=True)

    async def _attempt(self, wanted: Wanted, index: int, *, restart: bool) -> Layer:
        plan = wanted.plans[index]
        async with AsyncExitStack() as undo:
            async with self._at_work:
                staged = await undo.enter_async_context(self._staged())
                unpacked = await self._unpack(wanted, index, staged, restart=restart)
            below = (await self._layer(wanted, index - 1)).chain_id if index else ""
            return await self._commit(plan, below, staged, unpacked)

    async def _unpack(self, wanted: Wanted, index: int, staged: Path, *, restart: bool) -> Unpacked:
        """Download and unpack a layer and verify it. The download is removed afterwards."""
        plan = wanted.plans[index]
        digest = plan.descriptor.digest
        resumed = 0
        try:
            async with self._store.content.ingest(digest, plan.descriptor.size, restart=restart) as ingest:
                resumed = ingest.resumed
                unpacked = await self._stream(wanted, index, ingest, staged)
                _check(plan, unpacked)
                return unpacked
        except (DataLoss, InvalidArgument) as error:
            if resumed:
                raise _Damaged(str(error)) from error
            raise

    async def _stream(self, wanted: Wanted, index: int, ingest: Ingest, staged: Path) -> Unpacked:
        started = asyncio.Event()
        descriptor, limits = wanted.plans[index].descriptor, wanted.limits
        unpacked: list[Unpacked] = []

        async def unpack() -> None:
            await started.wait()
            try:
                done = await self._unpacker.unpack(ingest.growth, staged, descriptor.media_type, limits)
                unpacked.append(done)
            except (InvalidArgument, ResourceExhausted, Unimplemented) as error:
                raise type(error)(f"layer {descriptor.digest}: {error}") from error

        await concurrently(
            self._download(wanted, index, ingest, started), unpack(), name="download and unpack a layer"
        )
        return unpacked[0]

    async def _download(self, wanted: Wanted, index: int, ingest: Ingest, started: asyncio.Event) -> None:
        source, descriptor, stage = wanted.source, wanted.plans[index].descriptor, wanted.stage(index)
        async with wanted.slots, self._slots:
            started.set()
            stage.stage, stage.received = "downloading", ingest.offset

            def received(count: int) -> None:
                self._received(count)
                stage.received = ingest.offset
                wanted.progress.changed()

            try:
                sink = _Metered(ingest, received)
                await source.remote.blob(source.reference, descriptor, sink, source.credentials)
                await ingest.finish()
            except NoderuntimeError as error:
                ingest.growth.fail(error)
                raise
        stage.stage, stage.received = "unpacking", ingest.offset
        wanted.progress.changed()

    async def _commit(self, plan: LayerPlan, below: str, staged: Path, unpacked: Unpacked) -> Layer:
        catalog, snapshotter = self._store.catalog, self._store.snapshotter
        number = catalog.next_number()
        parents = [] if unpacked.opaque else catalog.stack(below)
        layer = Layer(
            chain_id=plan.chain_id,
            number=number,
            parent=below,
            opaque=unpacked.opaque,
            size=unpacked.size,
            bytes=unpacked.size,
            inodes=unpacked.entries,
            unfinished_at=int(time.time()),
            boot=catalog.boot,
        )
        try:
            await snapshotter.commit(staged, number, parents, unpacked.implied)
            await catalog.add_layer(layer)
        except BaseException:
            await snapshotter.remove_layer(number)
            raise
        return layer

    @asynccontextmanager
    async def _staged(self) -> AsyncIterator[Path]:
        """Yield a directory for a layer. It is removed unless the layer is committed."""
        staged = await self._store.snapshotter.stage()
        try:
            yield staged
        except BaseException:
            await self._store.snapshotter.discard(staged)
            raise


class _Metered:
    """A sink that reports the received bytes."""

    def __init__(self, ingest: Ingest, received: Callable[[int], None]) -> None:
        self._ingest = ingest
        self._received = received

    @property
    def offset(self) -> int:
        return self._ingest.offset

    async def hasher(self) -> Hash:
        return await self._ingest.hasher()

    async def write(self, data: bytes) -> None:
        await self._ingest.write(data)
        self._received(len(data))


def _check(plan: LayerPlan, unpacked: Unpacked) -> None:
    digest = plan.descriptor.digest
    if unpacked.digest != digest:
        raise DataLoss(f"layer {digest}: the unpacked content has the digest {unpacked.digest}")
    if unpacked.diff_id != plan.diff_id:
        raise DataLoss(f"layer {digest}: its diff ID is {unpacked.diff_id}, the config has {plan.diff_id}")
