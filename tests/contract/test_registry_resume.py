"""Interrupted downloads are resumed: after a reset, a rate limit, an expired token, at another host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic

import pytest
from registries import faults
from registries.hostile import honest
from registries.pulls import pull
from registries.scene import QUICK, Scene, refused, scene_of
from registries.sink import MemorySink

from noderuntime.core.errors import DataLoss, ResourceExhausted, Unavailable
from noderuntime.images.reference import parse

BLOBS = "GET /v2/team/app/blobs/"
EVERYTHING = "(GET|HEAD) /v2/"
TOKEN = "(GET|POST) /token"


@pytest.fixture
async def scene(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    async with scene_of(caplog) as scene:
        yield scene


def ranges(scene: Scene) -> list[str]:
    return [one.headers.get("range", "") for one in scene.registry.seen(BLOBS)]


async def pulled(scene: Scene, sink: MemorySink) -> None:
    await scene.client().blob(scene.reference, scene.layer, sink)
    assert sink.content == scene.blob


async def test_a_reset_is_resumed_where_it_happened(scene):
    sink = MemorySink()
    scene.registry.on(BLOBS, faults.cut_after(100_000, sink), faults.cut_after(50_000, sink), honest)
    await pulled(scene, sink)
    assert ranges(scene) == ["", "bytes=100000-", "bytes=150000-"]


async def test_without_ranges_the_prefix_is_not_written_twice(scene):
    sink = MemorySink()
    scene.registry.on(BLOBS, faults.cut_after(100_000, sink), faults.without_ranges)
    await pulled(scene, sink)
    assert ranges(scene) == ["", "bytes=100000-"]


@pytest.mark.parametrize(
    "unable",
    [
        faults.answers(416, Content_Range="bytes */300000"),
        faults.answers(206, b"x", Content_Range="bytes 299999-299999/300000"),
        faults.answers(206, b"x"),
    ],
    ids=["no ranges", "another range", "some range"],
)
async def test_a_host_without_ranges_is_asked_for_the_whole_blob(scene, unable):
    sink = MemorySink()
    scene.registry.on(BLOBS, faults.cut_after(100_000, sink), unable, faults.without_ranges)
    await pulled(scene, sink)
    assert ranges(scene) == ["", "bytes=100000-", ""]


async def test_a_range_that_starts_earlier_is_accepted(scene):
    body = scene.blob[40_000:]
    earlier = faults.answers(206, body, Content_Range="bytes 40000-299999/300000")
    scene.registry.on(BLOBS, earlier)
    await pulled(scene, MemorySink(scene.blob[:100_000]))


async def test_bytes_of_an_earlier_pull_are_not_fetched_again(scene):
    await pulled(scene, MemorySink(scene.blob[:299_999]))
    assert ranges(scene) == ["bytes=299999-"]
    await pulled(scene, MemorySink(scene.blob))
    assert len(scene.registry.asked) == 1, "a whole blob is only verified"


@pytest.mark.parametrize("held", [b"garbage", b"y" * 300_000, b"y" * 300_001])
async def test_bytes_of_an_earlier_pull_are_verified(scene, held):
    call = scene.client().blob(scene.reference, scene.layer, MemorySink(held))
    await refused(call, DataLoss, "does not have the digest sha256:")


async def test_a_host_that_always_disconnects_is_abandoned(scene):
    sink = MemorySink()
    scene.registry.on(BLOBS, faults.cut_after(10, sink))
    call = scene.client().blob(scene.reference, scene.layer, sink)
    await refused(call, Unavailable, "the connection was interrupted")
    assert len(scene.registry.asked) == QUICK.attempts
    assert sink.content == scene.blob[: 10 * QUICK.attempts], "what came is kept for the next pull"


async def test_progress_resets_the_count_of_failures(scene):
    """There are more failures than attempts, but 1 MiB of progress between them."""
    layer = scene.registry.content.blob(10 * faults.MIB)
    sink = MemorySink()
    scene.registry.on(BLOBS, *[faults.cut_after(faults.MIB + 10, sink)] * 9, honest)
    await scene.client().blob(scene.reference, layer, sink)
    assert len(scene.registry.asked) == 10
    assert sink.content == scene.registry.content.blobs[layer.digest]


async def test_another_host_resumes_an_interrupted_blob(scene):
    mirror = scene.other_host
    scene.hosts(
        "registry.example",
        f'server = "http://{scene.registry.authority}"\n[host."http://{mirror.authority}"]',
    )
    sink = MemorySink()
    mirror.on(BLOBS, faults.cut_after(100_000, sink), faults.answers(404))
    await scene.client().blob(parse("registry.example/team/app:v1"), scene.layer, sink)
    assert sink.content == scene.blob
    assert ranges(scene) == ["bytes=100000-"]


async def test_a_failure_of_the_sink_ends_the_pull(scene):
    with pytest.raises(OSError, match="no space"):
        await scene.client().blob(scene.reference, scene.layer, MemorySink(fail=OSError("no space")))
    assert len(scene.registry.asked) == 1


async def test_a_slow_sink_does_not_time_out(scene):
    class Slow(MemorySink):
        async def write(self, data: bytes) -> None:
            await asyncio.sleep(0.4)
            await super().write(data)

    sink = Slow()
    await scene.client(policy=replace(QUICK, window_seconds=0.2)).blob(scene.reference, scene.layer, sink)
    assert sink.content == scene.blob


async def test_a_cancelled_pull_closes_its_connection(scene):
    scene.registry.on(BLOBS, faults.stalls(faults.HEAD_OK + b"\r\nx"))
    sink = MemorySink()
    task = asyncio.ensure_future(scene.client().blob(scene.reference, scene.layer, sink))
    await sink.holds(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 0.3)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("what", ["(GET|HEAD) /v2/team/app/manifests/", BLOBS])
async def test_retry_after_is_honoured(scene, status, what):
    scene.registry.on(what, faults.answers(status, Retry_After=1), honest)
    begun = monotonic()
    assert len(await pull(scene.client(), scene.reference)) == 3
    assert monotonic() - begun >= 1


async def test_retry_after_may_be_a_date(scene):
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    scene.registry.on(EVERYTHING, faults.answers(429, Retry_After=at), honest)
    begun = monotonic()
    await pull(scene.client(), scene.reference)
    assert monotonic() - begun >= 0.5


@pytest.mark.parametrize(
    ("status", "kind"), [(429, ResourceExhausted), (503, Unavailable)], ids=["limited", "away"]
)
@pytest.mark.parametrize("asks", ["3600", "999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_a_long_retry_after_is_not_awaited(scene, status, kind, asks):
    scene.registry.on(EVERYTHING, faults.answers(status, Retry_After=asks))
    begun = monotonic()
    await refused(scene.client().resolve(scene.reference), kind, r"retry after \d+ s")
    assert monotonic() - begun < 1
    assert len(scene.registry.asked) == 1


@pytest.mark.parametrize("asks", ["0", "-1", "soon", "", "1e9", "Fri, 31 Dec 1999 23:59:59 GMT", "\u00b2"])
async def test_a_host_that_always_fails_is_abandoned(scene, asks):
    scene.registry.on(EVERYTHING, faults.answers(503, Retry_After=asks))
    await refused(scene.client().resolve(scene.reference), Unavailable, "status 503")
    assert len(scene.registry.asked) == QUICK.attempts


async def test_a_permanent_failure_is_not_retried(scene):
    scene.registry.on(EVERYTHING, faults.answers(400))
    await refused(scene.client().resolve(scene.reference), Unavailable, "status 400")
    assert len(scene.registry.asked) == 1
