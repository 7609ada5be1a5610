"""The pool of worker processes: start, reuse, limits, cancellation, errors."""

import asyncio
import errno
import os
import signal
import stat
import sys
from hashlib import sha256

import pytest
from layer_archives import CHARACTER, END, TAR, entry, tree, unpack, zipped
from layer_workers import CONTENT, LAYER, children, ended

from noderuntime.core.errors import (
    DataLoss,
    HostError,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from noderuntime.node.layers.pool import Unpackers
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS


async def test_pool_returns_the_same_as_a_direct_call(unpackers, blob, new_directory, target):
    expected = unpack(LAYER, target)
    target_directory = new_directory()
    assert await unpackers.unpack(blob(), target_directory, f"{TAR}+gzip") == expected
    assert tree(target_directory) == tree(target)
    assert expected.digest == f"sha256:{sha256(LAYER).hexdigest()}"
    assert expected.implied == ("big",)


async def test_pool_ignores_umask_and_file_position(unpackers, blob, new_directory):
    target_directory, layer = new_directory(), blob()
    layer.file.seek(12)
    before = os.umask(0o077)
    try:
        await unpackers.unpack(layer, target_directory, TAR)
    finally:
        os.umask(before)
    assert stat.S_IMODE((target_directory / "etc").stat().st_mode) == 0o751
    assert stat.S_IMODE((target_directory / "etc/passwd").stat().st_mode) == 0o644
    assert layer.file.tell() == 12


async def test_pool_unpacks_a_growing_file(unpackers, blob, new_directory):
    layer, target_directory = blob(available=0), new_directory()
    task = asyncio.create_task(unpackers.unpack(layer, target_directory, TAR))
    for end in (1, 2, 500, 300_000, 300_001, len(LAYER)):
        async with asyncio.timeout(20):
            await layer.requested.wait()
            while end > 300_000 and not (target_directory / "big/file").exists():
                await asyncio.sleep(0.001)  # another process creates it
        layer.write(end)
    layer.growth.finish()
    done = await task
    assert done.digest == f"sha256:{sha256(LAYER).hexdigest()}"
    assert (target_directory / "big/file").read_bytes() == CONTENT


async def test_pool_reads_no_further_than_announced(unpackers, blob, new_directory):
    layer = blob(LAYER + b"more bytes of the file", available=len(LAYER))
    layer.file.write(layer.content[len(LAYER) :])
    layer.growth.finish()
    done = await unpackers.unpack(layer, new_directory(), TAR)
    assert done.digest == f"sha256:{sha256(LAYER).hexdigest()}"


async def test_idle_worker_is_reused_and_then_retired(blob, new_directory):
    pool = Unpackers(2, idle_seconds=0.2)
    await pool.unpack(blob(), new_directory(), TAR)
    (pid,) = children()
    await pool.unpack(blob(), new_directory(), TAR)
    assert children() == {pid}
    await ended(pid)
    await pool.close()
    assert children() == set()
    await pool.unpack(blob(), new_directory(), TAR)
    assert len(children() - {pid}) == 1
    await pool.close()


async def test_expect_starts_one_worker_in_advance(blob, new_directory):
    pool = Unpackers(2)
    await pool.expect()
    await pool.expect()
    (pid,) = children()
    await pool.unpack(blob(), new_directory(), TAR)
    assert children() == {pid}
    await pool.close()


async def test_expect_respects_the_limit_on_workers(unpackers, blob, new_directory):
    layers = [blob(available=100) for _ in range(2)]
    tasks = [asyncio.create_task(unpackers.unpack(layer, new_directory(), TAR)) for layer in layers]
    async with asyncio.timeout(20):
        await asyncio.gather(*(layer.requested.wait() for layer in layers))
        await unpackers.expect()
        assert len(children()) == 2
        for layer in layers:
            layer.write(len(LAYER))
            layer.growth.finish()
        await asyncio.gather(*tasks)


async def test_unpack_respects_the_limit_on_workers(unpackers, blob, new_directory):
    layers = [blob(available=100) for _ in range(5)]
    tasks = [asyncio.create_task(unpackers.unpack(layer, new_directory(), TAR)) for layer in layers]
    async with asyncio.timeout(20):
        await asyncio.gather(*(layer.requested.wait() for layer in layers[:2]))
        assert len(children()) == 2
        assert not any(layer.requested.is_set() for layer in layers[2:])
        for layer in layers:
            layer.write(len(LAYER))
            layer.growth.finish()
        assert {done.entries for done in await asyncio.gather(*tasks)} == {3}
    assert len(children()) == 2


async def test_cancelled_unpack_kills_its_worker(unpackers, blob, new_directory):
    layer, target_directory = blob(available=300_000), new_directory()
    task = asyncio.create_task(unpackers.unpack(layer, target_directory, TAR))
    async with asyncio.timeout(20):
        await layer.requested.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == set()
    await unpackers.unpack(blob(), new_directory(), TAR)


async def test_unpack_can_be_cancelled_while_it_waits(blob, new_directory):
    pool = Unpackers(1)
    first = blob(available=10)
    busy = asyncio.create_task(pool.unpack(first, new_directory(), TAR))
    async with asyncio.timeout(20):
        await first.requested.wait()
    waiting = asyncio.create_task(pool.unpack(blob(), new_directory(), TAR))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    first.write(len(LAYER))
    first.growth.finish()
    assert (await busy).entries == 3
    await pool.close()


async def test_unpack_raises_the_error_of_the_download(unpackers, blob, new_directory):
    layer = blob(available=1000)
    task = asyncio.create_task(unpackers.unpack(layer, new_directory(), TAR))
    async with asyncio.timeout(20):
        await layer.requested.wait()
    layer.growth.fail(Unavailable("the registry is unavailable"))
    with pytest.raises(Unavailable, match="the registry is unavailable"):
        await task
    assert children() == set()


@pytest.mark.parametrize(
    ("content", "limits", "error", "message"),
    [
        (b"<html>" * 100, {}, InvalidArgument, "the layer is not a tar archive"),
        (LAYER[:-9], {}, InvalidArgument, "the layer's gzip stream is truncated"),
        (entry("../up") + END, {}, InvalidArgument, "the name '../up' leads out of the layer"),
        (LAYER, {"entries": 2}, ResourceExhausted, "the layer has more than the limit of 2 entries"),
        (
            entry("d", CHARACTER) * 2,
            {"devices": 1},
            ResourceExhausted,
            "the layer has more than the limit of 1 devices",
        ),
    ],
)
async def test_error_of_a_layer_keeps_the_worker(
    unpackers, blob, new_directory, content, limits, error, message, request
):
    if "devices" in limits:
        request.getfixturevalue("root")
    with pytest.raises(error, match=message) as caught:
        await unpackers.unpack(blob(content), new_directory(), TAR, DEFAULT_LIMITS._replace(**limits))
    assert type(caught.value) is error
    (pid,) = children()
    await unpackers.unpack(blob(), new_directory(), TAR)
    assert children() == {pid}


async def test_missing_target_is_an_error(unpackers, blob, tmp_path):
    with pytest.raises(HostError, match="No such file") as caught:
        await unpackers.unpack(blob(), tmp_path / "nowhere", TAR)
    assert caught.value.errno == errno.ENOENT


async def test_target_that_is_a_symlink_is_refused(unpackers, blob, new_directory, tmp_path):
    target_directory = new_directory()
    (tmp_path / "link").symlink_to(target_directory)
    with pytest.raises(HostError):
        await unpackers.unpack(blob(), tmp_path / "link", TAR)
    assert tree(target_directory) == {}


async def test_target_name_can_contain_any_bytes(unpackers, blob, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff\n\"'")
    odd.mkdir()
    await unpackers.unpack(blob(), odd, TAR)
    assert (odd / "etc/passwd").exists()


async def test_file_shorter_than_announced_is_data_loss(unpackers, blob, new_directory):
    layer = blob()
    layer.file.truncate(100)
    with pytest.raises(DataLoss, match="ends after 100 of"):
        await unpackers.unpack(layer, new_directory(), TAR)


async def test_unsupported_media_type_starts_no_worker(unpackers, blob, new_directory):
    with pytest.raises(InvalidArgument, match="encrypted"):
        await unpackers.unpack(blob(), new_directory(), f"{TAR}+gzip+encrypted")
    assert children() == set()


async def test_death_of_a_busy_worker_is_an_error(unpackers, blob, new_directory):
    layer = blob(available=1000)
    task = asyncio.create_task(unpackers.unpack(layer, new_directory(), TAR))
    async with asyncio.timeout(20):
        await layer.requested.wait()
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    layer.write(2000)
    with pytest.raises(Internal, match="a worker process that unpacks layers died"):
        await task
    assert children() == set()
    await unpackers.unpack(blob(), new_directory(), TAR)


async def test_death_of_an_idle_worker_is_ignored(unpackers, blob, new_directory):
    await unpackers.unpack(blob(), new_directory(), TAR)
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    assert (await unpackers.unpack(blob(), new_directory(), TAR)).entries == 3


async def test_missing_interpreter_is_an_error_and_retried(blob, new_directory, monkeypatch):
    pool = Unpackers(1)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    for _ in range(2):
        with pytest.raises(HostError, match="run /nonexistent/python"):
            await pool.unpack(blob(), new_directory(), TAR)
    monkeypatch.undo()
    await pool.unpack(blob(), new_directory(), TAR)
    await pool.close()


async def test_close_leaves_no_descriptor_open(blob, new_directory):
    pool = Unpackers(2)
    layers = [blob() for _ in range(3)]
    await pool.unpack(layers[0], new_directory(), TAR)
    await pool.close()
    before = os.listdir("/proc/self/fd")
    await asyncio.gather(*(pool.unpack(layer, new_directory(), TAR) for layer in layers))
    await pool.close()
    assert os.listdir("/proc/self/fd") == before


async def test_layers_in_one_worker_share_no_state(unpackers, blob, new_directory):
    first, second = new_directory(), new_directory()
    single = Unpackers(1)
    await single.unpack(blob(zipped(entry("d/a"), entry(".wh..wh..opq"))), first, TAR)
    done = await single.unpack(blob(zipped(entry("e/b"))), second, TAR)
    await single.close()
    assert (done.implied, done.opaque, tree(second)) == (("e",), False, {"e": "dir", "e/b": "''"})
