"""The containerd backend with unusual content; tests/contract has a real containerd."""

import hashlib
import json
from pathlib import Path

import pytest

from noderuntime.core.errors import HostError, Internal, InvalidArgument, NotFound, Unavailable
from noderuntime.images.backends.containerd import ContainerdBackend
from noderuntime.images.backends.containerd_api import content_pb2, images_pb2, snapshots_pb2, types_pb2
from noderuntime.images.base import Image, ImageConfig

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
NAME = "images.test/app:1"


class Store:
    """A fake containerd: blobs, one named image, snapshots."""

    def __init__(self):
        self.blobs, self.target, self.reads, self.snapshots = {}, None, [], set()
        self.mounts = [types_pb2.Mount(type="overlay", source="overlay", options=["lowerdir=/a:/b"])]
        self.away = False

    def blob(self, content):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.blobs[digest] = raw
        return digest

    def name(self, media_type, digest):
        self.target = types_pb2.Descriptor(media_type=media_type, digest=digest)

    async def call(self, method, request, _parse):
        verb = method.rpartition(".")[2]
        if verb == "Images/Get":
            return images_pb2.GetImageResponse(image=images_pb2.Image(name=request.name, target=self.target))
        if verb == "Images/List":
            image = images_pb2.Image(name=NAME, target=self.target)
            return images_pb2.ListImagesResponse(images=[image])
        if verb == "Snapshots/Prepare":
            self.snapshots.add(request.key)
            return snapshots_pb2.PrepareSnapshotResponse(mounts=self.mounts)
        if self.away:
            raise Unavailable("gone")
        self.snapshots.discard(request.key)
        return None

    async def stream(self, _method, request, _parse):
        self.reads.append(request.digest)
        if request.digest not in self.blobs:
            raise NotFound("content")
        content = self.blobs[request.digest]
        for start in range(0, len(content), 1 << 20):
            yield content_pb2.ReadContentResponse(data=content[start : start + (1 << 20)])


class MountHost:
    """Records mounts, or fails them."""

    def __init__(self):
        self.mounted, self.refuses = {}, False

    async def mount(self, mount):
        if self.refuses:
            raise HostError("mount", 22, "refused")
        self.mounted[mount.target] = mount

    async def unmount(self, target):
        self.mounted.pop(target, None)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def host():
    return MountHost()


@pytest.fixture
def backend(host, store):
    return ContainerdBackend(host, store, "overlayfs")


IMAGE = Image("sha256:" + "1" * 64, "", ImageConfig())


def manifest(store, config):
    digest = store.blob(config)
    return digest, store.blob({"config": {"digest": digest, "mediaType": "x", "size": 1}, "layers": []})


async def test_documents_are_cached_and_names_are_not(backend, store):
    digest, top = manifest(store, {"config": {"Cmd": ["a"]}})
    store.name(MANIFEST, top)
    first = await backend.image(NAME)
    assert (first.id, first.config.cmd, first.repo_tags) == (digest, ("a",), (NAME,))
    assert await backend.image(NAME) == first
    assert store.reads == [top, digest]


async def test_the_image_cache_is_bounded(backend, store):
    _, first = manifest(store, {"n": "first"})
    for number in range(300):
        store.name(MANIFEST, manifest(store, {"n": number})[1])
        await backend.image(NAME)
        store.name(MANIFEST, first)
        await backend.image(NAME)
    assert store.reads.count(first) == 1, "a recently used image stays cached"
    assert len(backend._resolved) <= 256


async def test_reading_a_document_stops_at_8_mib(backend, store):
    store.name(MANIFEST, store.blob(b" " * (9 << 20)))
    with pytest.raises(InvalidArgument, match="larger than 8 MiB"):
        await backend.image(NAME)


async def test_a_document_with_another_digest_is_rejected(backend, store):
    _, top = manifest(store, {})
    store.blobs[top] = b"{}"
    store.name(MANIFEST, top)
    with pytest.raises(Internal, match="does not match its digest"):
        await backend.image(NAME)


async def test_an_unknown_media_type_is_named(backend, store):
    store.name("application/vnd.docker.distribution.manifest.v1+json", store.blob({}))
    with pytest.raises(InvalidArgument, match=r"manifest\.v1\+json"):
        await backend.image(NAME)


async def test_an_index_without_this_platform_is_not_found(backend, store):
    _, top = manifest(store, {})
    entry = {"digest": top, "mediaType": MANIFEST, "platform": {"os": "plan9", "architecture": "amd64"}}
    store.name(INDEX, store.blob({"manifests": [entry]}))
    with pytest.raises(NotFound, match="no manifest for this machine"):
        await backend.image(NAME)


async def test_the_pulled_manifest_of_an_index_is_used(backend, store):
    digest, top = manifest(store, {})
    missing = f"sha256:{'0' * 64}"
    store.name(
        INDEX, store.blob({"manifests": [{"digest": one, "mediaType": MANIFEST} for one in (missing, top)]})
    )
    assert (await backend.image(NAME)).id == digest


async def test_a_failed_mount_removes_the_snapshot(backend, host, store):
    host.refuses = True
    with pytest.raises(HostError, match="refused"):
        await backend.prepare("c1", IMAGE, Path("/t"), {})
    assert store.snapshots == set()


async def test_a_snapshot_with_several_mounts_is_rejected(backend, store):
    store.mounts *= 2
    with pytest.raises(Internal, match="2 mounts"):
        await backend.prepare("c1", IMAGE, Path("/t"), {})
    assert store.snapshots == set()


async def test_a_failed_rollback_keeps_the_first_error(backend, host, store):
    host.refuses = store.away = True
    with pytest.raises(HostError, match="refused"):
        await backend.prepare("c1", IMAGE, Path("/t"), {})


async def test_a_bind_snapshot_is_bind_mounted(backend, host, store):
    store.mounts = [types_pb2.Mount(type="bind", source="/snapshots/1/fs", options=["rw", "rbind"])]
    await backend.prepare("c1", IMAGE, Path("/t"), {})
    [mount] = host.mounted.values()
    assert (mount.source, mount.fstype, "rbind" in mount.options) == ("/snapshots/1/fs", "", True)
    await backend.release("c1", Path("/t"))
    assert (host.mounted, store.snapshots) == ({}, set())
