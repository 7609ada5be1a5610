"""The worker processes: started, kept, killed, and what they say."""

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


async def test_a_worker_does_what_would_be_done_here(unpackers, blob, place, target):
    here = unpack(LAYER, target)
    there = place()
    assert await unpackers.unpack(blob(), there, f"{TAR}+gzip") == here
    assert tree(there) == tree(target)
    assert here.digest == f"sha256:{sha256(LAYER).hexdigest()}"
    assert here.implied == ("big",)


async def test_the_daemons_umask_and_position_in_the_file_do_not_matter(unpackers, blob, place):
    there, layer = place(), blob()
    layer.file.seek(12)
    before = os.umask(0o077)
    try:
        await unpackers.unpack(layer, there, TAR)
    finally:
        os.umask(before)
    assert stat.S_IMODE((there / "etc").stat().st_mode) == 0o751
    assert stat.S_IMODE((there / "etc/passwd").stat().st_mode) == 0o644
    assert layer.file.tell() == 12


async def test_a_layer_is_unpacked_while_it_still_comes(unpackers, blob, place):
    layer, there = blob(there=0), place()
    task = asyncio.create_task(unpackers.unpack(layer, there, TAR))
    for end in (1, 2, 500, 300_000, 300_001, len(LAYER)):
        async with asyncio.timeout(20):
            await layer.asked.wait()
            while end > 300_000 and not (there / "big/file").exists():
                await asyncio.sleep(0.001)  # another process makes it
        layer.write(end)
    layer.growth.finish()
    done = await task
    assert done.digest == f"sha256:{sha256(LAYER).hexdigest()}"
    assert (there / "big/file").read_bytes() == CONTENT


async def test_a_file_that_never_was_larger_than_said_is_read_no_further(unpackers, blob, place):
    layer = blob(LAYER + b"what a download wrote beyond", there=len(LAYER))
    layer.file.write(layer.content[len(LAYER) :])
    layer.growth.finish()
    done = await unpackers.unpack(layer, place(), TAR)
    assert done.digest == f"sha256:{sha256(LAYER).hexdigest()}"


async def test_a_worker_is_kept_for_the_next_layer_and_then_goes(blob, place):
    pool = Unpackers(2, idle_seconds=0.2)
    await pool.unpack(blob(), place(), TAR)
    (pid,) = children()
    await pool.unpack(blob(), place(), TAR)
    assert children() == {pid}
    await ended(pid)
    await pool.close()
    assert children() == set()
    await pool.unpack(blob(), place(), TAR)
    assert len(children() - {pid}) == 1
    await pool.close()


async def test_an_expected_layer_finds_a_worker(blob, place):
    pool = Unpackers(2)
    await pool.expect()
    await pool.expect()
    (pid,) = children()
    await pool.unpack(blob(), place(), TAR)
    assert children() == {pid}
    await pool.close()


async def test_an_expected_layer_makes_no_more_workers_than_allowed(unpackers, blob, place):
    layers = [blob(there=100) for _ in range(2)]
    tasks = [asyncio.create_task(unpackers.unpack(layer, place(), TAR)) for layer in layers]
    async with asyncio.timeout(20):
        await asyncio.gather(*(layer.asked.wait() for layer in layers))
        await unpackers.expect()
        assert len(children()) == 2
        for layer in layers:
            layer.write(len(LAYER))
            layer.growth.finish()
        await asyncio.gather(*tasks)


async def test_no_more_workers_than_allowed(unpackers, blob, place):
    layers = [blob(there=100) for _ in range(5)]
    tasks = [asyncio.create_task(unpackers.unpack(layer, place(), TAR)) for layer in layers]
    async with asyncio.timeout(20):
        await asyncio.gather(*(layer.asked.wait() for layer in layers[:2]))
        assert len(children()) == 2
        assert not any(layer.asked.is_set() for layer in layers[2:])
        for layer in layers:
            layer.write(len(LAYER))
            layer.growth.finish()
        assert {done.entries for done in await asyncio.gather(*tasks)} == {3}
    assert len(children()) == 2


async def test_a_cancelled_caller_finds_nobody_at_work_any_more(unpackers, blob, place):
    layer, there = blob(there=300_000), place()
    task = asyncio.create_task(unpackers.unpack(layer, there, TAR))
    async with asyncio.timeout(20):
        await layer.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == set()
    await unpackers.unpack(blob(), place(), TAR)


async def test_a_caller_that_is_cancelled_while_it_waits_for_a_worker(blob, place):
    pool = Unpackers(1)
    first = blob(there=10)
    busy = asyncio.create_task(pool.unpack(first, place(), TAR))
    async with asyncio.timeout(20):
        await first.asked.wait()
    waiting = asyncio.create_task(pool.unpack(blob(), place(), TAR))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    first.write(len(LAYER))
    first.growth.finish()
    assert (await busy).entries == 3
    await pool.close()


async def test_what_went_wrong_with_the_download_is_what_the_caller_hears(unpackers, blob, place):
    layer = blob(there=1000)
    task = asyncio.create_task(unpackers.unpack(layer, place(), TAR))
    async with asyncio.timeout(20):
        await layer.asked.wait()
    layer.growth.fail(Unavailable("the registry went away"))
    with pytest.raises(Unavailable, match="the registry went away"):
        await task
    assert children() == set()


@pytest.mark.parametrize(
    ("content", "limits", "error", "words"),
    [
        (b"<html>" * 100, {}, InvalidArgument, "the layer is no tar archive"),
        (LAYER[:-9], {}, InvalidArgument, "the layer's gzip stream ends too early"),
        (entry("../up") + END, {}, InvalidArgument, "the name '../up' would lead out of the layer"),
        (LAYER, {"entries": 2}, ResourceExhausted, "the layer has more than 2 entries"),
        (entry("d", CHARACTER) * 2, {"devices": 1}, ResourceExhausted, "the layer has more than 1 devices"),
    ],
)
async def test_errors_of_a_layer(unpackers, blob, place, content, limits, error, words, request):
    if "devices" in limits:
        request.getfixturevalue("root")
    with pytest.raises(error, match=words) as caught:
        await unpackers.unpack(blob(content), place(), TAR, DEFAULT_LIMITS._replace(**limits))
    assert type(caught.value) is error
    (pid,) = children()
    await unpackers.unpack(blob(), place(), TAR)
    assert children() == {pid}


async def test_a_target_that_does_not_exist(unpackers, blob, tmp_path):
    with pytest.raises(HostError, match="No such file") as caught:
        await unpackers.unpack(blob(), tmp_path / "nowhere", TAR)
    assert caught.value.errno == errno.ENOENT


async def test_a_target_that_is_a_link_is_not_followed(unpackers, blob, place, tmp_path):
    there = place()
    (tmp_path / "link").symlink_to(there)
    with pytest.raises(HostError):
        await unpackers.unpack(blob(), tmp_path / "link", TAR)
    assert tree(there) == {}


async def test_a_target_with_an_odd_name(unpackers, blob, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff\n\"'")
    odd.mkdir()
    await unpackers.unpack(blob(), odd, TAR)
    assert (odd / "etc/passwd").exists()


async def test_a_file_shorter_than_said(unpackers, blob, place):
    layer = blob()
    layer.file.truncate(100)
    with pytest.raises(DataLoss, match="ends after 100 of"):
        await unpackers.unpack(layer, place(), TAR)


async def test_a_type_that_is_no_layer_needs_no_worker(unpackers, blob, place):
    with pytest.raises(InvalidArgument, match="encrypted"):
        await unpackers.unpack(blob(), place(), f"{TAR}+gzip+encrypted")
    assert children() == set()


async def test_a_worker_that_dies_at_work(unpackers, blob, place):
    layer = blob(there=1000)
    task = asyncio.create_task(unpackers.unpack(layer, place(), TAR))
    async with asyncio.timeout(20):
        await layer.asked.wait()
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    layer.write(2000)
    with pytest.raises(Internal, match="a process that unpacks layers died"):
        await task
    assert children() == set()
    await unpackers.unpack(blob(), place(), TAR)


async def test_a_worker_that_died_while_nobody_needed_it(unpackers, blob, place):
    await unpackers.unpack(blob(), place(), TAR)
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    assert (await unpackers.unpack(blob(), place(), TAR)).entries == 3


async def test_an_interpreter_that_cannot_be_started(blob, place, monkeypatch):
    pool = Unpackers(1)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    for _ in range(2):
        with pytest.raises(HostError, match="run /nonexistent/python"):
            await pool.unpack(blob(), place(), TAR)
    monkeypatch.undo()
    await pool.unpack(blob(), place(), TAR)
    await pool.close()


async def test_nothing_is_left_open(blob, place):
    pool = Unpackers(2)
    layers = [blob() for _ in range(3)]
    await pool.unpack(layers[0], place(), TAR)
    await pool.close()
    before = os.listdir("/proc/self/fd")
    await asyncio.gather(*(pool.unpack(layer, place(), TAR) for layer in layers))
    await pool.close()
    assert os.listdir("/proc/self/fd") == before


async def test_two_layers_in_one_worker_share_nothing(unpackers, blob, place):
    first, second = place(), place()
    one = Unpackers(1)
    await one.unpack(blob(zipped(entry("d/a"), entry(".wh..wh..opq"))), first, TAR)
    done = await one.unpack(blob(zipped(entry("e/b"))), second, TAR)
    await one.close()
    assert (done.implied, done.opaque, tree(second)) == (("e",), False, {"e": "dir", "e/b": "''"})
