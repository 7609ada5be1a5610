"""Fakes for the tests of pulls: a registry and unpackers in memory, a store in a temporary directory."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from dataclasses import dataclass

from noderuntime.core.blocking import apart
from noderuntime.core.errors import DataLoss, HostError, InvalidArgument, NotFound
from noderuntime.images.backends.native import NativeBackend
from noderuntime.images.oci import chain_id
from noderuntime.images.remote import Descriptor
from noderuntime.images.store.store import open_store
from noderuntime.node.host.trees import remove_tree
from noderuntime.node.layers.tar.limits import Unpacked

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class FakeRemote:
    """See noderuntime.images.remote.Remote."""

    def __init__(self):
        self.content: dict[str, bytes] = {}
        self.tags: dict[str, Descriptor] = {}
        self.asked: Counter[str] = Counter()
        """How often each digest was requested."""
        self.sent = 0
        self.gates: dict[str, asyncio.Event] = {}
        """Events to wait for before a digest is sent."""
        self.begun: dict[str, asyncio.Event] = {}
        self.breaks: dict[str, list[tuple[int, Exception]]] = {}
        """Per digest, the errors that end its transfers in turn, with the number of bytes sent before."""
        self.lies: dict[str, bytes] = {}
        self.closed = False
        self.at_once = self.most_at_once = 0

    def keep(self, media_type, content):
        self.content[digest_of(content)] = content
        return Descriptor(media_type, digest_of(content), len(content))

    def add(self, media_type, **fields):
        """Add a manifest or index."""
        document = {"schemaVersion": 2, "mediaType": media_type, **fields}
        return self.keep(media_type, json.dumps(document).encode())

    def image(self, tag, *layers, config=None, diff_ids=None, media_type=LAYER):
        """Add an image. A layer is a dict of files by name, or the bytes of its archive."""
        tars = [layer if isinstance(layer, bytes) else tar_of(layer) for layer in layers]
        stored = [self.keep(media_type, gzip.compress(one, mtime=0)) for one in tars]
        if diff_ids is None:
            diff_ids = [digest_of(one) for one in tars]
        document = {"os": "linux", "config": config or {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        described = self.keep(CONFIG, json.dumps(document).encode())
        manifest = self.add(MANIFEST, config=entry(described), layers=[entry(layer) for layer in stored])
        self.tags[tag] = manifest
        return Built(manifest, described.digest, stored, diff_ids)

    def index(self, tag, *manifests):
        listed = [entry(one) | {"platform": {"os": "linux", "architecture": arch}} for arch, one in manifests]
        self.tags[tag] = self.add(INDEX, manifests=listed)
        return self.tags[tag]

    def begin(self, digest):
        """Return an event that is set when a blob is requested."""
        return self.begun.setdefault(digest, asyncio.Event())

    async def resolve(self, reference, credentials=None):
        self.asked["resolve"] += 1
        found = self.tags.get(reference.tag)
        if reference.digest:
            found = next((one for one in self.tags.values() if one.digest == reference.digest), None)
        if found is None:
            raise NotFound(f"image {reference}: not there")
        return found

    async def manifest(self, reference, descriptor, credentials=None):
        return await self._small(descriptor)

    async def blob(self, reference, descriptor, sink, credentials=None):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._blob(descriptor, sink)
        finally:
            self.at_once -= 1

    async def close(self):
        self.closed = True

    async def _blob(self, descriptor, sink):
        self.asked[descriptor.digest] += 1
        self.begin(descriptor.digest).set()
        state = await sink.hasher()
        content = self.lies.get(descriptor.digest) or self._find(descriptor)
        end, error = (self.breaks.get(descriptor.digest) or [(len(content), None)]).pop(0)
        while sink.offset < end:
            piece = content[sink.offset : min(end, sink.offset + (64 << 10))]
            state.update(piece)
            self.sent += len(piece)
            await sink.write(piece)
            await asyncio.sleep(0)
        if descriptor.digest in self.gates:
            await self.gates[descriptor.digest].wait()
        if error is not None:
            raise error
        if f"sha256:{state.hexdigest()}" != descriptor.digest:
            raise DataLoss(f"registry.test: the content does not have the digest {descriptor.digest}")

    async def document(self, reference, descriptor, credentials=None):
        return await self._small(descriptor)

    async def _small(self, descriptor):
        self.asked[descriptor.digest] += 1
        if descriptor.digest in self.gates:
            self.begin(descriptor.digest).set()
            await self.gates[descriptor.digest].wait()
        return self._find(descriptor)

    def _find(self, descriptor):
        if descriptor.digest not in self.content:
            raise NotFound(f"registry.test: no {descriptor.digest}")
        return self.content[descriptor.digest]


@dataclass
class Built:
    """The digests of an image of :meth:`FakeRemote.image`."""

    manifest: Descriptor
    id: str
    layers: list[Descriptor]
    diff_ids: list[str]

    @property
    def chain_id(self):
        return chain_id(self.diff_ids)


def entry(found):
    return {"mediaType": found.media_type, "digest": found.digest, "size": found.size}


class FakeUnpacker:
    """Unpacks in a thread, after the whole layer has arrived."""

    def __init__(self):
        self.unpacked = 0
        self.fail = None
        self.implied = ()
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def expect(self):
        pass

    async def unpack(self, blob, target, media_type, limits):
        self.begun.set()
        size = 0
        complete = False
        while not complete:
            size, complete = await blob.beyond(size)
        await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        raw = os.pread(blob.fileno(), size, 0)
        try:
            tar = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
            entries = await apart(lambda: _extract(tar, target), what="extract")
        except (OSError, EOFError, tarfile.TarError) as error:
            raise InvalidArgument("the layer is damaged") from error
        self.unpacked += 1
        return Unpacked(digest_of(tar), digest_of(raw), len(tar), entries, self.implied)

    async def close(self):
        pass


def _extract(tar, target):
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        archive.extraction_filter = lambda member, path: member  # Python 3.12 and 3.13 warn without a filter
        archive.extractall(target)
        return len(archive.getnames())


class MountHost:
    """Records mounts in memory, removes files for real."""

    def __init__(self):
        self.mounted = {}
        self.refuses = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def mount(self, mount):
        await self.gate.wait()
        if self.refuses:
            raise HostError("mount", 22, "refused")
        self.mounted[mount.target] = mount

    async def unmount(self, target):
        self.mounted.pop(target, None)

    async def remove_tree(self, path):
        await remove_tree(path)


class Site:
    """A store with its dependencies; ``again`` opens it as the next daemon does."""

    def __init__(self, root):
        self.root = root
        self.host, self.remote, self.unpacker = MountHost(), FakeRemote(), FakeUnpacker()
        self.store = self.backend = None

    async def open(self, boot="this boot", **settings):
        self.store = await open_store(self.root, self.host, boot)
        self.backend = NativeBackend(self.store, self.remote, self.unpacker, **settings)
        return self

    async def again(self, boot="this boot", **settings):
        await self.backend.close()
        return await self.open(boot, **settings)

    def left(self):
        """Return the files and directories of the store, one level deep."""
        kinds = ("layers", "snapshots", "partial", "blobs/sha256")
        found = {kind: sorted(path.name for path in (self.root / kind).iterdir()) for kind in kinds}
        return {kind: names for kind, names in found.items() if names}

    def file(self, built, name):
        """Return a file of an image's layers, without mounting them."""
        for number in self.store.catalog.stack(built.chain_id):
            path = self.root / "layers" / str(number) / name
            if path.exists():
                return path.read_bytes()
        return None
