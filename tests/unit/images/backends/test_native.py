"""The native backend with a real directory and fake mounts; tests/contract has real mounts."""

import asyncio
import dataclasses
import os
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from pulling import Site, digest_of

from noderuntime.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    HostError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from noderuntime.images.base import SnapshotUsage
from noderuntime.images.store.store import open_store

NAME = "registry.test/app"
KEY, OTHER = "a" * 64, "b" * 64


async def pulled(site, tag="1", *layers):
    built = site.remote.image(tag, *(layers or ({"base": b"base"}, {"file": tag.encode()})))
    await site.backend.pull(f"{NAME}:{tag}")
    return built


def rows(site, table):
    with sqlite3.connect(site.root / "images.db") as connection:
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return found


async def test_images_and_snapshots_survive_a_restart(site):
    built = await pulled(site)
    before = site.backend.list_images()
    await site.backend.prepare(KEY, await site.backend.image(built.id), Path("/t"), {})
    await site.again()
    assert site.backend.list_images() == before
    assert await site.backend.keys() == {KEY}
    assert site.file(built, "base") == b"base"
    await site.backend.release(KEY, Path("/t"))
    site.remote.image("2", {"base": b"base"}, {"more": b""})
    await site.backend.pull(f"{NAME}:2")
    assert len(site.left()["layers"]) == 3, "a number is not used twice"


@asynccontextmanager
async def locked(site):
    """Let the next write to the catalog begin but not end; yield a function that awaits its beginning."""
    writer = site.store.catalog._database._writer

    async def writes(expected=True):
        async with asyncio.timeout(5):
            while bool(writer.load().oldest) != expected:
                await asyncio.sleep(0.001)

    await writes(False)
    with closing(sqlite3.connect(site.root / "images.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield writes
        other.execute("ROLLBACK")


async def test_image_of_a_pull_cancelled_while_it_is_recorded_stays(site):
    await pulled(site)
    site.remote.image("2", {"base": b"base"}, {"file": b"1"}, config={"Cmd": ["other"]})
    async with locked(site) as writes:
        pulling = asyncio.create_task(site.backend.pull(f"{NAME}:2"))
        await writes()
        pulling.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await pulling
    before = site.backend.list_images()
    assert len(before) == 2
    await site.again()
    assert site.backend.list_images() == before


async def test_layer_is_used_by_others_after_its_write_only(site):
    built = site.remote.image("1", {"base": b"base"})
    async with locked(site) as writes:
        pulling = asyncio.create_task(site.backend.pull(f"{NAME}:1"))
        await writes()
        assert site.store.catalog.layer(built.chain_id) is None
    await pulling
    assert site.store.catalog.layer(built.chain_id) is not None


async def test_a_second_daemon_cannot_open_the_store(site):
    with pytest.raises(FailedPrecondition, match=f"another noderuntime already uses {site.root}"):
        await open_store(site.root, site.host, "this boot")


async def test_unknown_names_are_not_found_and_bad_ones_rejected(site):
    await pulled(site)
    for text in ("registry.test/none:1", "f" * 64, "sha256:" + "f" * 64, "ffff", "app"):
        assert site.backend.status(text) is None
        assert site.backend.list_images(text) == []
    with pytest.raises(NotFound, match="image 'none' is not on this node"):
        await site.backend.image("none")
    for text in ("", "No Name", "a:b:c"):
        with pytest.raises(InvalidArgument):
            site.backend.status(text)


async def test_an_id_prefix_must_be_unique(site):
    ids = [(await pulled(site, str(number), {"a": str(number).encode()})).id for number in range(20)]
    for one in ids:
        length = next(size for size in range(7, 71) if sum(other[:size] == one[:size] for other in ids) == 1)
        assert site.backend.status(one[7 : max(length, 11)]).id == one
    assert site.backend.list_images(ids[3])[0].id == ids[3]


async def test_ambiguous_prefix_of_an_id_is_refused_by_every_verb(site):
    built = await pulled(site)
    twin = dataclasses.replace(site.store.catalog.image(built.id), id=f"{built.id[:11]}{'f' * 60}")
    await site.store.catalog.add_image(twin, [])
    for text in (built.id[:11], built.id[7:11]):
        for verb in (site.backend.status, site.backend.list_images):
            with pytest.raises(InvalidArgument, match=f"prefix {built.id[7:11]} is ambiguous"):
                verb(text)
        for call in (site.backend.remove, site.backend.image):
            with pytest.raises(InvalidArgument, match="is ambiguous"):
                await call(text)
    assert len(site.backend.list_images()) == 2


async def test_removing_an_image_removes_its_names_and_files(site):
    built = await pulled(site)
    site.remote.tags["also"] = built.manifest
    await site.backend.pull(f"{NAME}:also")
    await site.backend.remove(f"{NAME}:also")
    assert site.backend.list_images() == []
    assert site.left() == {}
    assert [rows(site, table) for table in ("images", "names", "layers")] == [0, 0, 0]
    await site.backend.remove(f"{NAME}:also")
    await site.backend.remove(built.id)
    await site.backend.pull(f"{NAME}:1")
    assert site.file(built, "file") == b"1"


async def test_removing_keeps_layers_that_other_images_need(site):
    one, two = await pulled(site, "1"), await pulled(site, "2")
    await site.backend.remove(f"{NAME}:1")
    assert site.file(two, "base") == b"base"
    assert site.file(one, "file") is None
    assert len(site.left()["layers"]) == 2
    assert set(site.left()["blobs/sha256"]) == {two.id[7:], two.manifest.digest[7:]}


async def test_a_container_keeps_the_layers_of_a_removed_image(site):
    built = await pulled(site)
    image = await site.backend.image(built.id)
    await site.backend.prepare(KEY, image, Path("/t"), {})
    await site.backend.remove(built.id)
    assert site.file(built, "file") == b"1"
    await site.again()
    assert site.file(built, "file") == b"1"
    with pytest.raises(NotFound):
        await site.backend.image(built.id)
    await site.backend.release(KEY, Path("/t"))
    assert site.left() == {}


async def test_prepare_of_an_image_removed_meanwhile_fails_clearly(site):
    built = await pulled(site)
    image = await site.backend.image(built.id)
    await site.backend.remove(built.id)
    with pytest.raises(FailedPrecondition, match="was removed from this node: pull it again"):
        await site.backend.prepare(KEY, image, Path("/t"), {})
    assert await site.backend.keys() == set()


async def test_a_mount_has_its_layers_top_first(site):
    built = await pulled(site)
    await site.backend.prepare(KEY, await site.backend.image(built.id), Path("/t"), {})
    options = site.host.mounted[Path("/t")].options
    top, base = site.store.catalog.stack(built.chain_id)
    assert f"lowerdir={site.root}/layers/{top}:{site.root}/layers/{base}" in options
    assert f"upperdir={site.root}/snapshots/{KEY}/fs" in options
    assert await site.backend.usage(KEY) == SnapshotUsage(4096, 1)
    await site.backend.release(KEY, Path("/t"))
    assert site.host.mounted == {}


async def test_an_opaque_layer_ends_the_stack(site):
    unpack = site.unpacker.unpack

    async def opaque(blob, target, media_type, limits):
        done = await unpack(blob, target, media_type, limits)
        return done._replace(opaque=(target / "top").exists())

    site.unpacker.unpack = opaque
    built = await pulled(site, "1", {"base": b""}, {"top": b""}, {"more": b""})
    assert len(site.store.catalog.stack(built.chain_id)) == 2
    assert len(site.store.catalog.chain(built.chain_id)) == 3
    await site.again()
    assert len(site.store.catalog.stack(built.chain_id)) == 2


async def test_a_failed_mount_leaves_nothing(site):
    image = await site.backend.image((await pulled(site)).id)
    site.host.refuses = True
    with pytest.raises(HostError, match="refused"):
        await site.backend.prepare(KEY, image, Path("/t"), {})
    with pytest.raises(HostError, match="refused"):
        await site.backend.volume(KEY, image, Path("/v"))
    assert await site.backend.keys() == set()
    assert "snapshots" not in site.left()


async def test_a_cancelled_prepare_leaves_nothing(site):
    image = await site.backend.image((await pulled(site)).id)
    site.host.gate.clear()
    prepare = asyncio.create_task(site.backend.prepare(KEY, image, Path("/t"), {}))
    while "snapshots" not in site.left():
        await asyncio.sleep(0)
    prepare.cancel()
    await asyncio.wait([prepare])
    assert prepare.cancelled()
    assert await site.backend.keys() == set()
    assert "snapshots" not in site.left()


async def test_a_key_in_use_is_refused(site):
    image = await site.backend.image((await pulled(site)).id)
    await site.backend.prepare(KEY, image, Path("/t"), {})
    for target in ("/t", "/elsewhere"):
        with pytest.raises(AlreadyExists, match=f"container {KEY} already has a snapshot"):
            await site.backend.prepare(KEY, image, Path(target), {})
    assert await site.backend.keys() == {KEY}
    assert list(site.host.mounted) == [Path("/t")]


async def test_release_unmounts_the_image_volumes(site):
    image = await site.backend.image((await pulled(site)).id)
    await site.backend.volume(KEY, image, Path("/v1"))
    await site.backend.prepare(KEY, image, Path("/t"), {})
    await site.backend.volume(KEY, image, Path("/v2"))
    await site.backend.volume(OTHER, image, Path("/v3"))
    await site.backend.remove(image.id)
    await site.again()
    await site.backend.release(KEY, Path("/t"))
    assert list(site.host.mounted) == [Path("/v3")]
    assert await site.backend.keys() == {OTHER}
    await site.backend.release(OTHER, Path("/never"))
    assert (site.host.mounted, site.left()) == ({}, {})


async def test_a_pinned_image_is_listed_as_pinned(site):
    await pulled(site)
    assert [image.pinned for image in site.backend.list_images()] == [False]
    await site.again(pinned=[f"{NAME}:1"])
    assert [image.pinned for image in site.backend.list_images()] == [True]
    with pytest.raises(InvalidArgument):
        site.backend.configure(["docker.io"], ["no name at all"])
    assert [image.pinned for image in site.backend.list_images()] == [True]
    site.backend.configure(["docker.io"], [])
    assert [image.pinned for image in site.backend.list_images()] == [False]


async def test_fs_info_reports_the_usage_of_images(site):
    empty = await site.backend.fs_info()
    await pulled(site, "1", {"big": b"x" * 1_000_000})
    info = await site.backend.fs_info()
    assert info.path == await site.backend.filesystem() == str(site.root)
    assert 1_000_000 <= info.used_bytes - empty.used_bytes < 1_100_000
    assert info.inodes_used == empty.inodes_used + 3
    found = os.statvfs(site.root)
    assert info.capacity_bytes == found.f_blocks * found.f_frsize
    await site.store.settle()
    assert 1_000_000 <= (await site.backend.fs_info()).used_bytes - empty.used_bytes < 1_100_000


async def test_unsynced_layers_are_pulled_again_after_a_power_cut(site):
    written = await pulled(site, "1")
    await site.store.settle()
    lost = await pulled(site, "2")
    await site.again("next boot")
    assert [image.id for image in site.backend.list_images()] == [written.id]
    assert site.left()["layers"] == [
        str(number) for number in sorted(site.store.catalog.stack(written.chain_id))
    ]
    assert [rows(site, table) for table in ("images", "layers")] == [1, 2]
    assert await site.backend.pull(f"{NAME}:2") == lost.id
    assert site.file(lost, "file") == b"2"


@pytest.mark.parametrize("what", ["config", "layer", "damage"])
async def test_an_incomplete_image_is_dropped_and_pulled_again(site, what):
    other, built = await pulled(site, "other", {"other": b""}), await pulled(site)
    if what == "layer":
        os.rename(
            site.root / "layers" / str(site.store.catalog.stack(built.chain_id)[-1]), site.root / "gone"
        )
    elif what == "config":
        (site.root / "blobs/sha256" / built.id[7:]).unlink()
    else:
        (site.root / "blobs/sha256" / built.id[7:]).write_bytes(b"{}")
    await site.again()
    assert [image.id for image in site.backend.list_images()] == [other.id]
    assert len(site.left()["layers"]) == 1
    assert await site.backend.pull(f"{NAME}:1") == built.id
    await site.again()
    assert len(site.backend.list_images()) == 2


async def interrupt_after_the_first_layer(site, pull):
    """Cancel a pull after its own report: the catalog can list a layer before it is written."""
    while not any(layer.stage == "done" for one in site.backend.pulls() for layer in one.layers):
        await asyncio.sleep(0.001)
    pull.cancel()
    await asyncio.wait([pull])


async def test_parts_of_an_interrupted_pull_are_kept_for_an_hour(site, monkeypatch):
    built = site.remote.image("1", {"base": b"base"}, {"file": b"x" * 100_000})
    gate = site.remote.gates[built.layers[1].digest] = asyncio.Event()
    pull = asyncio.create_task(site.backend.pull(f"{NAME}:1"))
    await interrupt_after_the_first_layer(site, pull)
    await site.backend.remove("other/image")
    await site.again()
    assert len(site.left()["layers"]) == 1
    gate.set()
    await site.backend.pull(f"{NAME}:1")
    assert site.remote.asked[built.layers[0].digest] == 1, "the existing layer is used"
    await site.backend.remove(built.id)

    site.remote.gates[built.layers[1].digest].clear()
    pull = asyncio.create_task(site.backend.pull(f"{NAME}:1"))
    await interrupt_after_the_first_layer(site, pull)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3700)
    await site.again()
    assert site.left() == {}


async def test_leftovers_of_a_killed_daemon_are_removed_at_start(site):
    built = await pulled(site)
    for place in ("layers/new-1/etc", "layers/77/etc", f"snapshots/{OTHER}/fs", f"snapshots/{OTHER}/work"):
        (site.root / place).mkdir(parents=True)
    (site.root / "blobs/sha256/tmp.new").touch()
    (site.root / "blobs/sha256" / digest_of(b"")[7:]).touch()
    before = site.left()
    await site.again()
    assert len(site.left()["layers"]) == 2 < len(before["layers"])
    assert "snapshots" not in site.left()
    assert set(site.left()["blobs/sha256"]) == {built.id[7:], built.manifest.digest[7:]}


async def test_images_can_be_removed_on_a_full_disk(site):
    """On a full disk the database cannot grow either; the layers must be removed nevertheless."""
    built = await pulled(site)
    write = site.store.catalog._database.write

    async def full(*statements):
        if any("layers" in sql for sql, _ in statements):
            assert "layers" not in site.left(), "files are removed before rows"
        raise ResourceExhausted("the disk that holds the image catalog is full")

    site.store.catalog._database.write = full
    with pytest.raises(ResourceExhausted):
        await site.backend.remove(built.id)
    assert "layers" not in site.left()
    site.store.catalog._database.write = write
    await site.again()
    assert site.backend.list_images() == []
    assert rows(site, "images") == 0


async def test_an_image_that_cannot_be_recorded_is_not_listed(site):
    site.remote.image("1", {"a": b""})
    write = site.store.catalog._database.write

    async def full(*statements):
        if "INTO images" in statements[0][0]:
            raise ResourceExhausted("the disk that holds the image catalog is full")
        await write(*statements)

    site.store.catalog._database.write = full
    with pytest.raises(ResourceExhausted, match="the disk that holds the image catalog is full"):
        await site.backend.pull(f"{NAME}:1")
    assert site.backend.list_images() == []
    assert site.left() == {}


async def test_a_damaged_catalog_fails_with_one_clear_error(tmp_path):
    site = Site(tmp_path)
    (tmp_path / "images.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(FailedPrecondition, match=r"image catalog .* cannot be read .* move it away"):
        await site.open()
    (tmp_path / "images.db").unlink()
    await (await site.open()).backend.close()


async def test_close_closes_the_registry_client(site):
    await site.backend.close()
    assert site.remote.closed
    await site.open()


async def test_pulled_layers_are_synced_after_a_delay(site, monkeypatch):
    monkeypatch.setattr("noderuntime.images.backends.native._SETTLE_SECONDS", 0.0)
    built = await pulled(site)
    while any(layer.boot for layer in site.store.catalog.layers()):
        await asyncio.sleep(0.001)
    await site.again("next boot")
    assert [image.id for image in site.backend.list_images()] == [built.id]
