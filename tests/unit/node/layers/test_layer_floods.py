"""Layers that ask for too much: of everything there is a limit, and the error names it."""

import os

import pytest
from layer_archives import (
    CHARACTER,
    directory,
    entry,
    pax,
    refused,
    symlink,
    unpack,
    xattr,
    zipped,
)

from noderuntime.core.errors import ResourceExhausted
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS
from noderuntime.node.layers.zstandard import zstd


def test_long_ways_again_and_again(node, target):
    limits = DEFAULT_LIMITS._replace(steps=10_000)
    ways = [entry(way + b"d/" * 40 + b"f") for way in (b"a/", b"b/")]
    many = {"match": "more than 10000 directories", "error": ResourceExhausted, "limits": limits}
    refused(target, *ways * 150, **many)
    winding = pax((b"linkpath", b"d/../" * 200 + b"d"))
    refused(target, directory("d"), winding + symlink("l", b""), entry("l/f") * 30, **many)


@pytest.mark.usefixtures("root")
def test_a_flood_of_devices(node, target):
    limits = DEFAULT_LIMITS._replace(devices=5)
    flood = [entry(f"dev{n}", CHARACTER, major=1, minor=n) for n in range(6)]
    refused(target, *flood, match="more than 5 devices", error=ResourceExhausted, limits=limits)
    assert len(os.listdir(target)) == 5


@pytest.mark.parametrize(("major", "minor"), [(4096, 0), (1, 1 << 20), (0o7777777, 0)])
def test_device_numbers_that_no_kernel_has(node, target, major, minor):
    refused(target, entry("d", CHARACTER, major=major, minor=minor), match="absurd device number")


def test_a_flood_of_entries(node, target):
    limits = DEFAULT_LIMITS._replace(entries=100)
    refused(target, entry("f") * 101, match="more than 100 entries", error=ResourceExhausted, limits=limits)


def test_a_flood_of_directories(node, target):
    limits = DEFAULT_LIMITS._replace(kept=100_000)
    flood = [directory(f"d{n}") for n in range(300)]
    refused(target, *flood, match="too many directories", error=ResourceExhausted, limits=limits)
    heavy = [pax(xattr(b"user.a", b"v" * 3000)) + directory(f"e{n}") for n in range(40)]
    refused(target, *heavy, match="too many directories", error=ResourceExhausted, limits=limits)


@pytest.mark.parametrize("pack", [zipped, lambda *parts: zstd.compress(b"".join(parts) + bytes(1024), 3)])
def test_a_decompression_bomb(node, target, pack):
    bomb = pack(entry("zeros", content=bytes(16 << 20)))
    assert len(bomb) < 20_000
    limits = DEFAULT_LIMITS._replace(ratio=100, ratio_from=1 << 20)
    with pytest.raises(ResourceExhausted, match=r"decompression bomb: [0-9]+ bytes became"):
        unpack(bomb, target, limits)
    assert (target / "zeros").stat().st_size <= 8 << 20


def test_a_layer_larger_than_allowed(node, target):
    limits = DEFAULT_LIMITS._replace(size=1 << 20)
    many = [entry(f"f{n}", content=bytes(1 << 18)) for n in range(5)]
    refused(
        target, *many, match="more than 1048576 bytes uncompressed", error=ResourceExhausted, limits=limits
    )
    with pytest.raises(ResourceExhausted, match="more than 1048576 bytes uncompressed"):
        unpack(zipped(entry("a"), bytes(2 << 20)), target, limits)
