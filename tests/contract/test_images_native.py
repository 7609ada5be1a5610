"""The native backend without fakes: a real registry, workers, overlayfs, full disks, killed daemons."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from realnode import crashing
from realnode.layout import Layout
from registries.content import Content
from registries.real import RealRegistry

from noderuntime.core.errors import NotFound, ResourceExhausted
from noderuntime.core.ids import new_id
from noderuntime.images.backends.native import NativeBackend
from noderuntime.images.registry.client import Registry
from noderuntime.images.registry.hosts import Hosts
from noderuntime.images.store.store import open_store
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.host.mount import detach
from noderuntime.node.layers.pool import Unpackers

BIG = random.Random(1).randbytes(3 << 20)
APP = [
    {"etc/name": b"base", "big": BIG, "gone": b""},
    {"etc/name": b"app", ".wh.gone": b"", "sub/dir/file": b"x"},
]


@pytest.fixture(scope="module")
def registry():
    """A registry with ``team/app`` and several tags, and the content of its layers."""
    directory = Path(tempfile.mkdtemp(prefix="noderuntime-registry-"))
    started = RealRegistry(directory, directory / "storage", "plain")
    layout = Layout()
    started.app = layout.image(APP)
    started.huge = layout.image([{"huge": random.Random(2).randbytes(24 << 20)}])
    content = Content()
    content.blobs = dict(layout.blobs)
    for tag, described in (("1", started.app), ("huge", started.huge)):
        raw = content.blobs.pop(described["digest"])
        content.manifests[described["digest"]] = (described["mediaType"], raw)
        content.tags[tag] = described["digest"]
    started.push("team/app", content)
    yield started
    started.stop()
    shutil.rmtree(directory)


@pytest.fixture
def area():
    directory = Path(tempfile.mkdtemp(prefix="noderuntime-native-"))
    yield directory
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if f" {directory}/" in line:
            detach(line.split()[4])
    shutil.rmtree(directory)


async def opened(root):
    store = await open_store(root, LinuxHost(), "this boot")
    return NativeBackend(store, Registry(Hosts([])), Unpackers())


@pytest.fixture
async def backend(area):
    backend = await opened(area / "images")
    yield backend
    await backend.close()


@pytest.fixture
def target(area):
    path = area / "target"
    path.mkdir()
    return path


def name(registry, tag="1"):
    return f"{registry.authority}/team/app:{tag}"


async def test_an_image_from_a_real_registry(backend, registry, target, area):
    assert await backend.pull(name(registry)) == registry.app["id"]
    image = await backend.image(registry.app["id"])
    assert image.repo_tags == (name(registry),)
    assert image.repo_digests == (f"{registry.authority}/team/app@{registry.app['digest']}",)
    key = new_id()
    await backend.prepare(key, image, target, {})
    assert (target / "etc/name").read_bytes() == b"app"
    assert (target / "big").read_bytes() == BIG
    assert not (target / "gone").exists()
    await backend.release(key, target)
    assert os.listdir(area / "images/partial") == []
    info = await backend.fs_info()
    assert info.used_bytes > len(BIG)


async def test_ten_pulls_at_once(backend, registry):
    pulls = [backend.pull(name(registry, tag)) for tag in ("1", "huge") for _ in range(5)]
    assert set(await asyncio.gather(*pulls)) == {registry.app["id"], registry.huge["id"]}
    compressed = backend.counters.received
    assert 27 << 20 < compressed < 30 << 20, "everything came once"


async def test_an_image_volume_and_a_path_into_it(backend, registry, target, area):
    await backend.pull(name(registry))
    image = await backend.image(name(registry))
    key = new_id()
    inside = await backend.volume(key, image, target, "sub/dir")
    assert inside == target / "sub/dir"
    assert (inside / "file").read_bytes() == b"x"
    with pytest.raises(OSError, match="Read-only"):
        (inside / "new").touch()
    await backend.remove(image.id)
    assert (inside / "file").exists(), "its layers stay while it is mounted"
    other = area / "other"
    other.mkdir()
    with pytest.raises(NotFound, match="path 'none' does not exist in the image"):
        await backend.volume(key, image, other, "none")
    await backend.release(key, area / "never")
    assert await backend.keys() == set()
    assert list(target.iterdir()) == []
    assert os.listdir(area / "images/layers") == []


async def test_a_full_disk_fails_the_pull_and_keeps_images(registry, area, target):
    small = area / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", small], check=True)
    backend = await opened(small / "images")
    await backend.pull(name(registry))
    with pytest.raises(ResourceExhausted, match=f"image {name(registry, 'huge')}: .*(full|no room|No space)"):
        await backend.pull(name(registry, "huge"))
    assert os.listdir(small / "images/partial") == []
    assert len(os.listdir(small / "images/layers")) == 2
    key = new_id()
    await backend.prepare(key, await backend.image(name(registry)), target, {})
    assert (target / "big").read_bytes() == BIG
    await backend.release(key, target)
    (small / "ballast").write_bytes(bytes(30 << 20))
    with pytest.raises(ResourceExhausted, match=r"needs more than \d+ bytes, .* available"):
        await backend.pull(name(registry, "huge"))
    (small / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=80m", small], check=True)
    assert await backend.pull(name(registry, "huge")) == registry.huge["id"]
    await backend.close()


def test_a_pull_killed_at_any_step_is_completed_by_the_next(registry, area):
    """See realnode/crashing.py. What is left by the killed one is used or gone."""
    command = [sys.executable, crashing.__file__, area, registry.authority, "team/app:1", registry.app["id"]]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    outcomes = [json.loads(line) for line in ran.stdout.splitlines()]
    expected = outcomes[-1]
    assert set(expected["tree"]) == {"etc/name", "big", "sub/dir/file"}
    assert len(outcomes) > 30
    for outcome in outcomes:
        assert outcome["id"] == registry.app["id"]
        assert (outcome["tags"], outcome["tree"]) == ([name(registry)], expected["tree"]), outcome
        kinds = [entry.rpartition("/")[0] for entry in outcome["after"]]
        assert kinds == ["layers"] * 2 + ["blobs/sha256"] * 2, outcome
        assert outcome["removed"] == [], outcome
    assert any(any("partial/" in entry for entry in outcome["before"]) for outcome in outcomes)
