"""The contract of images/base.py for every backend: the native one, and one with a real containerd."""

import asyncio
import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
from realnode.containerd import Containerd
from realnode.layout import LAYER, Layout
from realnode.layout_remote import LayoutRemote
from realnode.tools import tool

from noderuntime.core.errors import AlreadyExists, FailedPrecondition, HostError, NotFound, Unavailable
from noderuntime.core.ids import new_id
from noderuntime.images.backends.containerd import ContainerdBackend
from noderuntime.images.backends.containerd_client import ContainerdClient
from noderuntime.images.backends.native import NativeBackend
from noderuntime.images.base import ImageConfig
from noderuntime.images.store.store import open_store
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.layers.pool import Unpackers

NAME = "images.test/app"
DEFAULTS = {
    "Env": ["A=1"],
    "Entrypoint": ["/entry"],
    "Cmd": ["serve"],
    "WorkingDir": "/srv",
    "User": "1000",
    "StopSignal": "SIGINT",
    "Volumes": {"/data": {}},
}


def images():
    """Create the shared images: one for two platforms and with two names, and an empty one."""
    layout = Layout()
    app = layout.image([{"etc/a": b"lower", "b": b"gone"}, {"etc/a": b"upper", ".wh.b": b""}], DEFAULTS)
    foreign = layout.image([{"foreign": b""}], architecture="arm64")
    index = layout.index(foreign, app)
    layout.name(index, f"{NAME}:1")
    layout.name(index, f"{NAME}:also")
    layout.name(layout.image([]), f"{NAME}:empty")
    return layout, app, index


def mounts(area):
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(area) in line]


class ContainerdNode:
    """A containerd with a few images, and operations on it for tests."""

    def __init__(self, daemon: Containerd, area: Path) -> None:
        self.daemon, self.area = daemon, area
        layout, self.app, self.index = images()
        self._import(layout)
        packed = Layout()
        packed.name(packed.image([{"never": b"unpacked"}]), f"{NAME}:packed")
        self._import(packed, "--no-unpack")
        self.ctr("images", "tag", f"{NAME}:1", f"{NAME}@{self.index['digest']}")

    async def load(self, layout: Layout) -> None:
        await asyncio.to_thread(self._import, layout)

    async def remove(self, *names: str) -> None:
        await asyncio.to_thread(self.ctr, "images", "remove", "--sync", *names)

    def ctr(self, *arguments: str) -> str:
        argv = [tool("ctr"), "-a", self.daemon.socket, "-n", "k8s.io", *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def snapshots(self) -> set[str]:
        """List layers by their chain IDs, and containers' snapshots."""
        lines = self.ctr("snapshots", "--snapshotter", "overlayfs", "list").splitlines()[1:]
        return {line.split()[0] for line in lines}

    async def backend(self) -> ContainerdBackend:
        return ContainerdBackend(LinuxHost(), ContainerdClient(self.daemon.socket, "k8s.io"), "overlayfs")

    def _import(self, layout: Layout, *flags: str) -> None:
        archive = self.area / "image.tar"
        layout.write(archive)
        self.ctr("images", "import", *flags, str(archive))
        archive.unlink()


class NativeNode:
    """A native store with the same images."""

    def __init__(self, area: Path) -> None:
        self.area = area
        self._remote = LayoutRemote()
        self._backend: NativeBackend | None = None
        layout, self.app, self.index = images()
        asyncio.run(self._begin(layout))

    async def load(self, layout: Layout) -> None:
        for name in self._remote.add(layout):
            await self._backend.pull(name)

    async def remove(self, *names: str) -> None:
        for name in names:
            await self._backend.remove(name)

    def snapshots(self) -> set[str]:
        """List layers by their chain IDs, and containers' snapshots."""
        with closing(sqlite3.connect(self.area / "images/images.db")) as catalog:
            layers = {chain_id for (chain_id,) in catalog.execute("SELECT chain_id FROM layers")}
            return layers | {f"noderuntime-{key}" for (key,) in catalog.execute("SELECT key FROM snapshots")}

    async def backend(self) -> NativeBackend:
        store = await open_store(self.area / "images", LinuxHost(), "this boot")
        self._backend = NativeBackend(store, self._remote, Unpackers())
        return self._backend

    async def _begin(self, layout: Layout) -> None:
        await self.backend()
        await self.load(layout)
        await self._backend.close()


@pytest.fixture(scope="module")
def containerd_node(cni_conf):
    area = Path(tempfile.mkdtemp(prefix="noderuntime-images-"))
    daemon = Containerd(area / "containerd", Path(tempfile.mkdtemp(prefix="nrim-", dir="/run")), cni_conf)
    daemon.start()
    try:
        yield ContainerdNode(daemon, area)
    finally:
        daemon.remove()
        area.rmdir()


@pytest.fixture(scope="module")
def native_node():
    area = Path(tempfile.mkdtemp(prefix="noderuntime-images-"))
    try:
        yield NativeNode(area)
    finally:
        shutil.rmtree(area)


@pytest.fixture(params=["containerd", "native"])
def node(request):
    """The conformance suite's parameter: one node per kind of backend."""
    node = request.getfixturevalue(f"{request.param}_node")
    before = node.snapshots()
    yield node
    assert mounts(node.area) == [], "a mount is left"
    assert {name for name in node.snapshots() - before if name.startswith("noderuntime-")} == set()


@pytest.fixture
async def backend(node):
    backend = await node.backend()
    yield backend
    await backend.close()


@pytest.fixture
def target(node):
    path = Path(tempfile.mkdtemp(dir=node.area))
    yield path
    path.rmdir()


@pytest.fixture
async def container(backend, target):
    """Yield a key for the test to prepare. It is released afterwards."""
    key = new_id()
    yield key
    await backend.release(key, target)


async def by_id(backend, image_id):
    """Find an image by its ID, which the CRI plugin registers a moment after an import."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return await backend.image(image_id)
        except NotFound:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_an_image_is_found_by_tag_digest_and_id(backend, node):
    image = await backend.image(f"{NAME}:1")
    assert image.id == node.app["id"]
    assert image.config == ImageConfig(
        ("A=1",), ("/entry",), ("serve",), "/srv", "1000", "SIGINT", ("/data",)
    )
    assert set(image.repo_tags) == {f"{NAME}:1", f"{NAME}:also"}
    found = await by_id(backend, image.id)
    assert (found.id, found.chain_id) == (image.id, image.chain_id)
    assert await backend.image(image.id.removeprefix("sha256:")) == found
    by_digest = await backend.image(f"{NAME}:whatever@{node.index['digest']}")
    assert by_digest.id == image.id
    assert by_digest.repo_digests == (f"{NAME}@{node.index['digest']}",)


async def test_a_missing_image_is_named(backend):
    with pytest.raises(NotFound, match=r"'images.test/none' is not on this node"):
        await backend.image("images.test/none")
    with pytest.raises(NotFound):
        await backend.image("f" * 64)


async def test_a_snapshot_shows_the_layers_and_is_private(backend, node, container, target):
    image = await backend.image(f"{NAME}:1")
    await backend.prepare(container, image, target, {"example.com/why": "a test"})
    assert (target / "etc/a").read_bytes() == b"upper"
    assert not (target / "b").exists()
    (target / "etc/a").write_bytes(b"changed")

    other, elsewhere = new_id(), Path(tempfile.mkdtemp(dir=node.area))
    await backend.prepare(other, image, elsewhere, {})
    assert (elsewhere / "etc/a").read_bytes() == b"upper"
    assert await backend.keys() == {container, other}
    await backend.release(other, elsewhere)
    elsewhere.rmdir()
    assert await backend.keys() == {container}


async def test_an_image_without_layers_gives_an_empty_writable_directory(backend, container, target):
    await backend.prepare(container, await backend.image(f"{NAME}:empty"), target, {})
    assert list(target.iterdir()) == []
    (target / "file").touch()


@pytest.mark.parametrize("layers", [{}, {"layers": None}, {"layers": []}], ids=str)
@pytest.mark.parametrize("rootfs", [{}, {"rootfs": None}, {"rootfs": {"diff_ids": None}}], ids=str)
async def test_absent_and_null_lists_are_an_image_without_layers(
    backend, node, container, target, layers, rootfs
):
    layout = Layout()
    config = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["x"]}, **rootfs}
    layout.name(layout.manifest(config, **layers), f"{NAME}:no-layers")
    await node.load(layout)
    image = await backend.image(f"{NAME}:no-layers")
    assert (image.chain_id, image.config) == ("", ImageConfig(cmd=("x",)))
    await backend.prepare(container, image, target, {})
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
async def test_layers_that_may_not_be_distributed_are_unpacked(backend, node, container, target, media_type):
    """The registry has them; nothing is at their ``urls``."""
    layout = Layout()
    plain = layout.image([{"file": b"content"}])
    document, config = (json.loads(layout.blobs[digest]) for digest in (plain["digest"], plain["id"]))
    [layer] = document["layers"]
    layer |= {"mediaType": media_type, "urls": ["http://192.0.2.1/layer"]}
    layout.name(layout.manifest(config, layers=[layer]), f"{NAME}:foreign")
    await node.load(layout)
    await backend.prepare(container, await backend.image(f"{NAME}:foreign"), target, {})
    assert (target / "file").read_bytes() == b"content"


async def test_a_layer_of_zeros_is_unpacked(backend, node, container, target):
    """The layer has 1.2 GiB and is compressed as far as deflate can, 1032 times."""
    size, block = 1200 << 20, bytes(1 << 20)
    info = tarfile.TarInfo("disk.img")
    info.size = size
    packed, diff = io.BytesIO(), hashlib.sha256()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as archive:
        for piece in (info.tobuf(), *(block for _ in range(size >> 20)), bytes(1024)):
            archive.write(piece)
            diff.update(piece)
    layout = Layout()
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff.hexdigest()}"]},
    }
    layout.name(layout.manifest(config, layers=[layout.blob(LAYER, packed.getvalue())]), f"{NAME}:zeros")
    await node.load(layout)
    image = await backend.image(f"{NAME}:zeros")
    await backend.prepare(container, image, target, {})
    assert os.stat(target / "disk.img").st_size == size
    await node.remove(f"{NAME}:zeros")


async def test_usage_grows_with_what_is_written(backend, container, target):
    await backend.prepare(container, await backend.image(f"{NAME}:1"), target, {})
    before = await backend.usage(container)
    (target / "big").write_bytes(b"x" * 1_000_000)
    after = await backend.usage(container)
    assert after.bytes - before.bytes >= 1_000_000
    assert after.inodes == before.inodes + 1
    with pytest.raises(NotFound):
        await backend.usage(new_id())


async def test_the_filesystem_is_a_directory_on_this_node(backend):
    filesystem = await backend.filesystem()
    assert Path(filesystem).is_dir()
    assert await backend.filesystem() == filesystem


async def test_release_is_idempotent_and_accepts_unknown_keys(backend, container, target):
    await backend.prepare(container, await backend.image(f"{NAME}:1"), target, {})
    await backend.release(container, target)
    assert list(target.iterdir()) == []
    await backend.release(container, target)
    await backend.release(new_id(), target / "never")


async def test_a_key_in_use_is_rejected_and_its_snapshot_stays(backend, container, target):
    image = await backend.image(f"{NAME}:1")
    await backend.prepare(container, image, target, {})
    with pytest.raises(AlreadyExists):
        await backend.prepare(container, image, target, {})
    assert (target / "etc/a").exists()
    assert await backend.keys() == {container}


async def test_a_mount_that_fails_leaves_no_snapshot(backend, target):
    image = await backend.image(f"{NAME}:1")
    with pytest.raises(HostError, match="mount overlay"):
        await backend.prepare(new_id(), image, target / "missing", {})
    assert await backend.keys() == set()


async def test_a_cancelled_prepare_leaves_nothing(backend, node, target):
    image = await backend.image(f"{NAME}:1")
    for milliseconds in (0, 0.3, 0.6, 1, 2):
        key = new_id()
        task = asyncio.create_task(backend.prepare(key, image, target, {}))
        await asyncio.sleep(milliseconds / 1000)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:  # it was quicker
            await backend.release(key, target)
    assert await backend.keys() == set()
    assert mounts(node.area) == []


@pytest.mark.parametrize("node", ["containerd"], indirect=True)
async def test_an_image_that_was_not_unpacked_is_a_clear_error(backend, target):
    image = await backend.image(f"{NAME}:packed")
    with pytest.raises(FailedPrecondition, match="not unpacked for snapshotter overlayfs"):
        await backend.prepare(new_id(), image, target, {})
    assert await backend.keys() == set()


async def test_an_image_removed_meanwhile_is_a_clear_error(backend, node, target):
    layout = Layout()
    layout.name(layout.image([{"soon": b"gone"}]), f"{NAME}:gone")
    await node.load(layout)
    image = await backend.image(f"{NAME}:gone")
    await by_id(backend, image.id)
    await node.remove(f"{NAME}:gone", image.id)
    with pytest.raises(FailedPrecondition, match=image.id):
        await backend.prepare(new_id(), image, target, {})
    assert await backend.keys() == set()


async def test_layers_exist_as_long_as_their_snapshots(backend, node, container, target):
    layout = Layout()
    layout.name(layout.image([{"kept": b"while used"}]), f"{NAME}:short-lived")
    await node.load(layout)
    image = await backend.image(f"{NAME}:short-lived")
    await by_id(backend, image.id)
    await backend.prepare(container, image, target, {})
    await node.remove(f"{NAME}:short-lived", image.id)
    assert image.chain_id in node.snapshots()
    assert (target / "kept").read_bytes() == b"while used"
    with pytest.raises(NotFound):
        await backend.image(f"{NAME}:short-lived")

    await backend.release(container, target)
    another = Layout()
    another.name(another.image([{"another": b""}]), f"{NAME}:short-lived")
    await node.load(another)
    await node.remove(f"{NAME}:short-lived")
    assert image.chain_id not in node.snapshots()


@pytest.mark.parametrize("node", ["containerd"], indirect=True)
async def test_a_restart_of_containerd_is_unavailable_and_heals(node, backend, container, target):
    image = await backend.image(f"{NAME}:1")
    await backend.prepare(container, image, target, {})
    node.daemon.stop()
    try:
        with pytest.raises(Unavailable, match=r"containerd at .* is not available") as caught:
            await backend.image(f"{NAME}:1")
        assert "\n" not in str(caught.value)
        assert (target / "etc/a").exists(), "a container that runs is untouched"
    finally:
        node.daemon.start()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert await backend.keys() == {container}
            break
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_times(backend, target, capsys):
    """Printed, not asserted: the machine is shared."""
    image = await backend.image(f"{NAME}:1")
    found, prepared, released = [], [], []
    for _ in range(15):
        key, begin = new_id(), time.perf_counter()
        await backend.image(f"{NAME}:1")
        found.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        await backend.prepare(key, image, target, {})
        prepared.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        await backend.release(key, target)
        released.append(time.perf_counter() - begin)
    with capsys.disabled():
        for name, times in (("image", found), ("prepare+mount", prepared), ("release", released)):
            print(f" {name} {sorted(times)[len(times) // 2] * 1e3:.1f} ms", end="")
