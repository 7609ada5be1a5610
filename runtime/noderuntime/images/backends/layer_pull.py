"""The layers of an image on their way: downloaded and unpacked at the same time, some at once.

A layer that two pulls need is fetched by the one that came first. If that one fails the other
tries for itself, because it may ask another registry, or with other credentials.
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
from noderuntime.node.layers.tar.limits import Unpacked

_log = log.get(__name__)

PER_IMAGE = 3
PER_NODE = 6
"""Layers that are downloaded at once."""
_AT_WORK = 12
"""Layers of a node that are downloaded or unpacked, or wait for an unpacker; each costs some descriptors."""


class Unpacker(Protocol):
    """Unpacks layers; :class:`noderuntime.node.layers.pool.Unpackers` does it in worker processes."""

    async def expect(self) -> None:
        """Get ready for a layer that will come."""

    async def unpack(self, blob: Blob, target: Path, media_type: str) -> Unpacked:
        """Unpack a layer into an empty directory while the blob may still be growing."""

    async def close(self) -> None:
        """End what it keeps ready."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """A layer as manifest and config describe it."""

    descriptor: Descriptor
    diff_id: str
    chain_id: str
    parent: str
    """Chain ID of the layer below; empty at the bottom."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image comes from."""

    remote: Remote
    reference: Reference
    credentials: Credentials | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one pull wants."""

    source: Source
    plans: Sequence[LayerPlan]
    """Bottom first."""
    progress: Progress
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PER_IMAGE))

    def stage(self, index: int) -> LayerProgress:
        """Return how far a layer is."""
        return self.progress.layers[index]


class _Damaged(Exception):
    """What an earlier pull left is no beginning of the layer."""


class LayerPuller:
    """Fetches layers for all pulls of a node."""

    def __init__(self, store: Store, unpacker: Unpacker, received: Callable[[int], None]) -> None:
        """Use a store; ``received`` is told of bytes that came."""
        self._store = store
        self._unpacker = unpacker
        self._received = received
        self._slots = asyncio.Semaphore(PER_NODE)
        self._at_work = asyncio.Semaphore(_AT_WORK)
        self._joint: Joint[Layer] = Joint("pull a layer")

    async def expect(self) -> None:
        """Get ready for layers that will come."""
        await self._unpacker.expect()

    async def fetch(self, wanted: Wanted) -> None:
        """See to it that all layers are there."""
        await concurrently(
            *(self._layer(wanted, index) for index in range(len(wanted.plans))), name="fetch a layer"
        )

    async def _layer(self, wanted: Wanted, index: int) -> Layer:
        chain_id = wanted.plans[index].chain_id
        while (layer := self._store.catalog.layer(chain_id)) is None:
            somebody_is_at_it = chain_id in self._joint
            try:
                layer = await self._joint.do(chain_id, lambda: self._make(wanted, index))
                break
            except NoderuntimeError:
                if not somebody_is_at_it:
                    raise
        wanted.stage(index).stage = "done"
        wanted.progress.changed()
        return layer

    async def _make(self, wanted: Wanted, index: int) -> Layer:
        try:
            return await self._attempt(wanted, index, afresh=False)
        except _Damaged as damaged:
            digest = wanted.plans[index].descriptor.digest
            _log.info("an earlier pull left damage, once more", layer=digest, error=damaged)
            return await self._attempt(wanted, index, afresh=True)

    async def _attempt(self, wanted: Wanted, index: int, *, afresh: bool) -> Layer:
        plan = wanted.plans[index]
        async with AsyncExitStack() as undo:
            async with self._at_work:
                staged = await undo.enter_async_context(self._staged())
                unpacked = await self._unpack(wanted, index, staged, afresh=afresh)
            below = (await self._layer(wanted, index - 1)).chain_id if index else ""
            return await self._commit(plan, below, staged, unpacked)

    async def _unpack(self, wanted: Wanted, index: int, staged: Path, *, afresh: bool) -> Unpacked:
        """Download and unpack a layer, and check that it is the one; the download is dropped then."""
        plan = wanted.plans[index]
        digest = plan.descriptor.digest
        resumed = 0
        try:
            async with self._store.content.ingest(digest, plan.descriptor.size, afresh=afresh) as ingest:
                resumed = ingest.resumed
                unpacked = await self._stream(wanted, index, ingest, staged)
                _check(plan, unpacked)
                return unpacked
        except (DataLoss, InvalidArgument) as error:
            if resumed:
                raise _Damaged(str(error)) from error
            raise

    async def _stream(self, wanted: Wanted, index: int, ingest: Ingest, staged: Path) -> Unpacked:
        begun = asyncio.Event()
        descriptor = wanted.plans[index].descriptor
        unpacked: list[Unpacked] = []

        async def unpack() -> None:
            await begun.wait()
            try:
                done = await self._unpacker.unpack(ingest.growth, staged, descriptor.media_type)
                unpacked.append(done)
            except (InvalidArgument, ResourceExhausted, Unimplemented) as error:
                raise type(error)(f"layer {descriptor.digest}: {error}") from error

        await concurrently(
            self._download(wanted, index, ingest, begun), unpack(), name="download and unpack a layer"
        )
        return unpacked[0]

    async def _download(self, wanted: Wanted, index: int, ingest: Ingest, begun: asyncio.Event) -> None:
        source, descriptor, stage = wanted.source, wanted.plans[index].descriptor, wanted.stage(index)
        async with wanted.slots, self._slots:
            begun.set()
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
        """Give a directory for a layer, which is removed unless the layer is committed."""
        staged = await self._store.snapshotter.stage()
        try:
            yield staged
        except BaseException:
            await self._store.snapshotter.discard(staged)
            raise


class _Metered:
    """A sink that tells how much came."""

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
        raise DataLoss(f"layer {digest}: what was unpacked is {unpacked.digest}")
    if unpacked.diff_id != plan.diff_id:
        raise DataLoss(f"layer {digest}: unpacked it is {unpacked.diff_id}, its config says {plan.diff_id}")
