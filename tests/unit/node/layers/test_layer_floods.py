"""Layers that exceed a limit are refused with an error that names it."""

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


def test_path_resolution_steps_are_limited(node, target):
    limits = DEFAULT_LIMITS._replace(steps=10_000)
    ways = [entry(way + b"d/" * 40 + b"f") for way in (b"a/", b"b/")]
    many = {"match": "the limit of 10000 steps", "error": ResourceExhausted, "limits": limits}
    refused(target, *ways * 150, **many)
    winding = pax((b"linkpath", b"d/../" * 200 + b"d"))
    refused(target, directory("d"), winding + symlink("l", b""), entry("l/f") * 30, **many)


@pytest.mark.usefixtures("root")
def test_devices_are_limited(node, target):
    limits = DEFAULT_LIMITS._replace(devices=5)
    flood = [entry(f"dev{n}", CHARACTER, major=1, minor=n) for n in range(6)]
    refused(target, *flood, match="the limit of 5 devices", error=ResourceExhausted, limits=limits)
    assert len(os.listdir(target)) == 5


@pytest.mark.parametrize(("major", "minor"), [(4096, 0), (1, 1 << 20), (0o7777777, 0)])
def test_invalid_device_number_is_refused(node, target, major, minor):
    refused(target, entry("d", CHARACTER, major=major, minor=minor), match="invalid device number")


def test_entries_are_limited(node, target):
    limits = DEFAULT_LIMITS._replace(entries=100)
    refused(
        target, entry("f") * 101, match="the limit of 100 entries", error=ResourceExhausted, limits=limits
    )


def test_memory_for_directories_is_limited(node, target):
    limits = DEFAULT_LIMITS._replace(directory_bytes=100_000)
    flood = [directory(f"d{n}") for n in range(300)]
    refused(target, *flood, match="too many directories", error=ResourceExhausted, limits=limits)
    heavy = [pax(xattr(b"user.a", b"v" * 3000)) + directory(f"e{n}") for n in range(40)]
    refused(target, *heavy, match="too many directories", error=ResourceExhausted, limits=limits)


@pytest.mark.parametrize("pack", [zipped, lambda *parts: zstd.compress(b"".join(parts) + bytes(1024), 3)])
def test_decompression_bomb_is_refused(node, target, pack):
    bomb = pack(*(entry(f"zeros{n}", content=bytes(4 << 20)) for n in range(4)))
    assert len(bomb) < 20_000
    limits = DEFAULT_LIMITS._replace(size=4 << 20)
    with pytest.raises(ResourceExhausted, match=r"exceeds the limit of 4194304 bytes"):
        unpack(bomb, target, limits)
    assert len(os.listdir(target)) < 3


def test_zeros_compressed_as_far_as_deflate_can_are_unpacked(node, target):
    zeros = zipped(entry("zeros", content=bytes(64 << 20)))
    assert len(zeros) * 1000 < 64 << 20
    unpack(zeros, target, DEFAULT_LIMITS._replace(size=65 << 20))
    assert (target / "zeros").stat().st_size == 64 << 20


def test_layer_that_leaves_too_little_free_disk_is_refused(node, target):
    free = os.statvfs(target.parent)
    limits = DEFAULT_LIMITS._replace(free_disk=free.f_blocks * free.f_frsize + 1)
    needed = rf"needs more than {limits.free_disk} bytes of which {limits.free_disk} stay free"
    refused(target, entry("a", content=b"x"), match=needed, error=ResourceExhausted, limits=limits)
    assert os.listdir(target) == []


def test_uncompressed_size_is_limited(node, target):
    limits = DEFAULT_LIMITS._replace(size=1 << 20)
    many = [entry(f"f{n}", content=bytes(1 << 18)) for n in range(5)]
    refused(target, *many, match="the limit of 1048576 bytes", error=ResourceExhausted, limits=limits)
    with pytest.raises(ResourceExhausted, match="the limit of 1048576 bytes"):
        unpack(zipped(entry("a"), bytes(2 << 20)), target, limits)
