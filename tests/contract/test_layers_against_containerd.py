"""Layers unpacked by a worker and by containerd: the resulting directories are equal."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from layer_trees import differences, looks, make_everything
from realnode.containerd import Containerd
from realnode.layout import Layout
from realnode.tools import tool

from noderuntime.node.layers.growth import GrowingFile
from noderuntime.node.layers.pool import Unpackers
from noderuntime.node.layers.tar.limits import Unpacked
from noderuntime.node.layers.zstandard import zstd

LAYER = "application/vnd.oci.image.layer.v1.tar"
NAME = "noderuntime.test/layers:1"


class Layer:
    """An archive built entry by entry."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(  # noqa: SIM115 - closed by tar()
            fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT
        )

    def add(self, name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> Layer:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mtime = kind, len(content), 1_600_000_000
        for field, value in fields.items():
            setattr(info, field, value)
        self._tar.addfile(info, io.BytesIO(content))
        return self

    def directory(self, name: str, mode: int = 0o755) -> Layer:
        return self.add(name, tarfile.DIRTYPE, mode=mode)

    def symlink(self, name: str, target: str) -> Layer:
        return self.add(name, tarfile.SYMTYPE, linkname=target, mode=0o777)

    def tar(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def base(place: Path) -> bytes:
    source = place / "source"
    source.mkdir()
    make_everything(source)
    (source / "capable too").unlink()  # of a file with two names containerd loses the capabilities
    packed = place / "base.tar"
    options = ["--numeric-owner", "--format=posix", "--xattrs", "--xattrs-include=*"]
    subprocess.run([tool("tar"), *options, "-C", source, "-cf", packed, "."], check=True)
    return packed.read_bytes()


def removals(_: Path) -> bytes:
    layer = Layer().directory("bin", 0o711)
    layer.add("bin/.wh.plain").add(".wh.sticky").add(".wh.deep")
    layer.directory("empty").add("empty/.wh..wh..opq").add("empty/new", content=b"new")
    layer.add("bin/.wh.setuid").add("bin/setuid", content=b"another", mode=0o4711, uid=7)
    layer.add("before/f").add(".wh.link").directory("link", 0o700)
    return layer.tar()


def changes(_: Path) -> bytes:
    layer = Layer().add("sticky", content=b"a file now").directory("pipe", 0o700).symlink("bin", "sbin")
    layer.directory("real").symlink("lib", "real/../real").add("lib/a", content=b"1").symlink("abs", "/real")
    layer.add("abs/b", content=b"2").directory("lib/sub", 0o750).symlink("abs/up", "../../../..")
    layer.add("abs/up/real/c", content=b"3").add("implied/by/f", content=b"4")
    layer.add("twice", content=b"1").add("once more", tarfile.LNKTYPE, linkname="twice")
    layer.add("twice", content=b"2").directory("d").add("d/f").add("d", content=b"file over directory")
    layer.add("e", content=b"1").directory("e", 0o710).add("/absolute//./path", content=b"5")
    layer.add("caps", content=b"x", uid=3, pax_headers={"mtime": "1600000000.123456789"})
    return layer.tar()


LAYERS: list[tuple[Callable[[Path], bytes], str, Callable[[bytes], bytes]]] = [
    (base, "+gzip", gzip.compress),
    (removals, "+zstd", zstd.compress),
    (changes, "", bytes),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="noderuntime-layers-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def blobs(place: Path) -> list[tuple[str, bytes, bytes]]:
    """Return media type, compressed and uncompressed bytes of each layer, lowest first."""
    return [(LAYER + suffix, pack(raw := make(place)), raw) for make, suffix, pack in LAYERS]


@pytest.fixture(scope="module")
def theirs(containerd: Containerd, place: Path, blobs: list[tuple[str, bytes, bytes]]) -> list[Path]:
    """Return containerd's directory of each layer, lowest first."""

    def ctr(*arguments: object) -> str:
        argv = [tool("ctr"), "-a", containerd.socket, "-n", "k8s.io", *map(str, arguments)]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout

    layout = Layout()
    diff_ids = [f"sha256:{hashlib.sha256(raw).hexdigest()}" for _, _, raw in blobs]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layout.blob("application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
        "layers": [layout.blob(media_type, packed) for media_type, packed, _ in blobs],
    }
    layout.name(layout.blob(manifest["mediaType"], json.dumps(manifest).encode()), NAME)
    layout.write(place / "image.tar")
    ctr("images", "import", place / "image.tar")
    chain = ""
    for diff_id in diff_ids:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}" if chain else diff_id
    ctr("snapshots", "view", "noderuntime-layers", chain)
    mount = ctr("snapshots", "mounts", "/anywhere", "noderuntime-layers")
    lower = next(part for part in mount.replace(" ", ",").split(",") if part.startswith("lowerdir="))
    return [Path(path) for path in reversed(lower.removeprefix("lowerdir=").split(":"))]


@pytest.fixture
async def unpackers():  # type: ignore[no-untyped-def]
    pool = Unpackers()
    yield pool
    await pool.close()


async def unpack(unpackers: Unpackers, blob: tuple[str, bytes, bytes], directory: Path) -> Unpacked:
    media_type, packed, raw = blob
    target = directory / "ours"
    target.mkdir()
    (directory / "blob").write_bytes(packed)
    with (directory / "blob").open("rb") as file:
        done = await unpackers.unpack(
            GrowingFile(file.fileno(), len(packed), complete=True), target, media_type
        )
    assert done.diff_id == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    return done


@pytest.mark.parametrize("number", range(len(LAYERS)), ids=[make.__name__ for make, _, _ in LAYERS])
async def test_each_layer_equals_containerds(
    theirs: list[Path], blobs: list[tuple[str, bytes, bytes]], unpackers: Unpackers, number: int
) -> None:
    assert len(theirs) == len(LAYERS)
    with tempfile.TemporaryDirectory(prefix="noderuntime-layers-") as directory:
        done = await unpack(unpackers, blobs[number], Path(directory))
        found, wanted = looks(Path(directory) / "ours"), looks(theirs[number])
    for tree in (found, wanted):
        for name, look in tree.items():
            if name in (".", *done.implied) or look["device"] == 0:
                del look["mtime"]  # made by the way, or a whiteout: containerd leaves the time of unpacking
    if LAYERS[number][0] is removals:
        # The layer removes what was there and brings a directory: nothing of the old one shall show through.
        assert found["link"]["xattrs"].pop("trusted.overlay.opaque") == b"y"
    assert differences(wanted, found) == {}
