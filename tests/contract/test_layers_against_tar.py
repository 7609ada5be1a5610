"""A worker unpacks archives of GNU tar as GNU tar does: mode, owner, attributes, time, links and contents."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from layer_trees import differences, looks, make_everything
from realnode.tools import tool

from noderuntime.core.errors import ResourceExhausted
from noderuntime.node.layers.growth import GrowingFile
from noderuntime.node.layers.pool import Unpackers
from noderuntime.node.layers.tar.limits import Unpacked

TAR = "application/vnd.oci.image.layer.v1.tar"
ATTRIBUTES = ("--xattrs", "--xattrs-include=*")
PACKED = {
    "pax": ("--format=posix", *ATTRIBUTES),
    "pax, holes as in format 0.0": ("--format=posix", *ATTRIBUTES, "--sparse", "--sparse-version=0.0"),
    "pax, holes as in format 0.1": ("--format=posix", *ATTRIBUTES, "--sparse", "--sparse-version=0.1"),
    "pax, holes as in format 1.0": ("--format=posix", *ATTRIBUTES, "--sparse", "--sparse-version=1.0"),
    "gnu": ("--format=gnu",),
    "gnu, with holes": ("--format=gnu", "--sparse"),
    "gnu of long ago, with holes": ("--format=oldgnu", "--sparse"),
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory on a real filesystem, with all kinds of attributes."""
    with tempfile.TemporaryDirectory(prefix="noderuntime-layers-") as directory:
        yield Path(directory)


@pytest.fixture
async def unpackers() -> AsyncIterator[Unpackers]:
    pool = Unpackers()
    yield pool
    await pool.close()


async def unpack(unpackers: Unpackers, blob: Path, target: Path) -> Unpacked:
    target.mkdir()
    with blob.open("rb") as file:
        growth = GrowingFile(file.fileno(), blob.stat().st_size, complete=True)
        return await unpackers.unpack(growth, target, TAR)


def tar(*arguments: object) -> None:
    subprocess.run([tool("tar"), "--numeric-owner", *map(str, arguments)], check=True)


@pytest.mark.parametrize("packed", PACKED)
async def test_every_kind_of_entry_of_gnu_tar_is_unpacked(
    place: Path, unpackers: Unpackers, packed: str
) -> None:
    source, theirs, ours = place / "source", place / "theirs", place / "ours"
    source.mkdir()
    make_everything(source)
    tar("-C", source, *PACKED[packed], "-cf", place / "blob", ".")
    theirs.mkdir()
    tar("-C", theirs, "-xp", *ATTRIBUTES, "-f", place / "blob")
    await unpack(unpackers, place / "blob", ours)
    assert differences(looks(theirs), looks(ours)) == {}
    if "--xattrs" in PACKED[packed]:
        assert differences(looks(source), looks(ours)) == {}
    if "--sparse" in PACKED[packed]:
        assert (ours / "holes").stat().st_blocks * 512 < 1 << 17


@pytest.mark.parametrize(
    "pack", [["gzip", "-1"], ["gzip", "-9"], ["zstd", "-q"], ["zstd", "-q", "-1", "--long=27"]]
)
async def test_a_tree_of_this_machine_round_trips(place: Path, unpackers: Unpackers, pack: list[str]) -> None:
    """Programs, configuration and links as in a distribution."""
    blob = place / "blob"
    parts = [part for part in ("etc", "usr/sbin", "usr/share/zoneinfo") if (Path("/") / part).exists()]
    tar("-C", "/", "--sort=name", *PACKED["pax"], "-cf", blob, *parts)
    subprocess.run([tool(pack[0]), *pack[1:], "--keep", blob], check=True)
    packed = blob.with_suffix(".gz" if pack[0] == "gzip" else ".zst")
    theirs = place / "theirs"
    theirs.mkdir()
    tar("-C", theirs, "-xp", *ATTRIBUTES, "-f", blob)
    done = await unpack(unpackers, packed, place / "ours")
    assert done.size == blob.stat().st_size
    apart = differences(looks(theirs), looks(place / "ours"))
    assert apart.keys() <= {".", "usr", "usr/share"}, "directories that the archive only implies may differ"
    assert set(done.implied) == {"usr", "usr/share"} & {str(Path(part).parent) for part in parts}


async def test_a_full_disk(place: Path, unpackers: Unpackers) -> None:
    """The error names the file that did not fit; after space is freed, the same worker continues."""
    small = place / "small"
    small.mkdir()
    (place / "large").write_bytes(b"x" * (2 << 20))
    tar("-C", place, "-cf", place / "blob", "large")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        with pytest.raises(ResourceExhausted, match="writing 'large' failed: No space left on device"):
            await unpack(unpackers, place / "blob", small / "layer")
    finally:
        subprocess.run(["umount", small], check=True)
    assert (await unpack(unpackers, place / "blob", place / "layer")).entries == 1
