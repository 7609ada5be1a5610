"""A registry that sends other content than announced: one clear line, in bounded time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from registries import faults
from registries.hostile import FaultyRegistry, honest
from registries.pulls import pull
from registries.scene import Scene, refused, scene_of
from registries.sink import MemorySink

from noderuntime.core.errors import DataLoss, InvalidArgument, NotFound, Unavailable
from noderuntime.images.reference import Reference, parse

BLOBS = "GET /v2/team/app/blobs/"


@pytest.fixture
async def scene(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    async with scene_of(caplog) as scene:
        yield scene


async def test_an_honest_registry_is_pulled_from(scene):
    assert len(await pull(scene.client(), scene.reference)) == 3


async def test_a_registry_on_ipv6_needs_no_configuration(scene):
    other = FaultyRegistry(scene.registry.content)
    await other.start(host="::1")
    try:
        assert len(await pull(scene.client(), parse(f"{other.authority}/team/app:v1"))) == 3
    finally:
        await other.stop()


BODIES = [
    ("another digest", faults.answers(200, b"x" * 300_000), DataLoss, "does not have the digest sha256:"),
    ("a shorter body", faults.answers(200, b"x"), DataLoss, "announced 1 bytes, expected 300000"),
    ("a longer body", faults.answers(200, b"x" * 300_001), DataLoss, "announced 300001 bytes"),
    ("an early end", faults.chunked(b"x" * 99), DataLoss, "ended after 99 of 300000 expected bytes"),
    (
        "an early end of all",
        faults.sends(faults.HEAD_OK + b"\r\nxxx"),
        DataLoss,
        "ended after 3 of 300000 expected bytes",
    ),
    ("an endless body", faults.endless(b"x"), DataLoss, "sent more"),
    ("a slow trickle", faults.trickles(faults.HEAD_OK + b"\r\n"), Unavailable, r"too slow, \d+ bytes in 1 s"),
    ("silence", faults.stalls(faults.HEAD_OK + b"\r\nxxx"), Unavailable, "sent nothing for 0.4 s"),
    ("no answer", faults.stalls(), Unavailable, "timed out"),
    ("half an answer", faults.trickles(b"HTTP/1.1 200 OK\r\nX-Slow: "), Unavailable, "timed out"),
    ("a hang-up", faults.sends(b""), Unavailable, "the connection was interrupted"),
    ("a page", faults.HTML, DataLoss, "sent 'text/html' instead of"),
    ("a bomb", faults.gzipped(bytes(faults.MIB)), DataLoss, "sent an encoded body"),
    ("a foreign range", faults.answers(206, b"x", Content_Range="bytes 7-7/300000"), Unavailable, "range"),
    (
        "a strange range",
        faults.answers(206, b"x", Content_Range="lines 1-2"),
        Unavailable,
        "no valid Content-Range",
    ),
    (
        "no length",
        faults.sends(faults.HEAD_OK + b"Content-Length: many\r\n\r\n"),
        Unavailable,
        "is not valid HTTP",
    ),
    (
        "a negative length",
        faults.sends(faults.HEAD_OK + b"Content-Length: -1\r\n\r\n"),
        Unavailable,
        "is not valid HTTP",
    ),
    (
        "a chunk of no size",
        faults.sends(faults.CHUNKED + b"zz\r\nxx\r\n"),
        Unavailable,
        "was interrupted|not valid HTTP",
    ),
    (
        "a chunk that never begins",
        faults.repeats(b"0" * 4096, faults.CHUNKED),
        Unavailable,
        "was interrupted|not valid HTTP|nothing",
    ),
    ("another protocol", faults.sends(b"SSH-2.0-OpenSSH_9.6\r\n" * 9), Unavailable, "is not valid HTTP"),
    (
        "a huge header",
        faults.sends(faults.HEAD_OK + b"X: " + b"x" * faults.MIB + b"\r\n\r\n"),
        Unavailable,
        "is not valid HTTP",
    ),
    (
        "an endless header",
        faults.repeats(b"x" * 4096, faults.HEAD_OK + b"X: "),
        Unavailable,
        "is not valid HTTP",
    ),
    ("endless headers", faults.repeats(b"X: x\r\n" * 100, faults.HEAD_OK), Unavailable, "is not valid HTTP"),
    ("endless good will", faults.repeats(b"HTTP/1.1 100 Continue\r\n\r\n"), Unavailable, "timed out"),
    ("a switch", faults.answers(101, b""), Unavailable, "status 101"),
    ("nothing new", faults.answers(304, b""), Unavailable, "status 304"),
    ("nothing", faults.answers(204, b""), Unavailable, "status 204"),
    ("no status of any kind", faults.answers(999, b""), Unavailable, "status 999"),
    ("a teapot that talks", faults.answers(418, b"a\nb\x1b[31m" * 9999), Unavailable, "status 418"),
    (
        "a missing blob",
        faults.answers(404, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}'),
        NotFound,
        "BLOB_UNKNOWN",
    ),
    ("words of its own", faults.answers(404, b'{"errors": [{"code": "a\\nb"}]}'), NotFound, r"\(404\)$"),
    (
        "an endless complaint",
        faults.repeats(b"1\r\nx\r\n", faults.CHUNKED.replace(b"200", b"404")),
        NotFound,
        "404",
    ),
]


@pytest.mark.parametrize(**faults.cases(BODIES))
async def test_an_invalid_blob_fails_with_one_line(scene, behaviour, kind, words):
    scene.registry.on(BLOBS, behaviour)
    sink = MemorySink()
    await refused(scene.client().blob(scene.reference, scene.layer, sink), kind, words)
    assert len(sink.content) <= scene.layer.size
    if kind is not DataLoss:
        assert sink.content in (b"", b"xxx") or "slow" in words, (
            "nothing but what a resumed pull goes on from"
        )


@pytest.mark.parametrize(**faults.cases(BODIES))
async def test_an_invalid_config_blob_fails_with_one_line(scene, behaviour, kind, words):
    scene.registry.on(BLOBS, behaviour)
    descriptor = replace(scene.config, size=300_000)
    await refused(scene.client().document(scene.reference, descriptor), kind, words)


@pytest.mark.parametrize("named", ["sha512:" + "0" * 128, "sha256:../../v2/", "", "sha256:" + "A" * 64])
async def test_an_unsupported_digest_is_not_requested(scene, named):
    descriptor = replace(scene.layer, digest=named)
    await refused(
        scene.client().blob(scene.reference, descriptor, MemorySink()), InvalidArgument, "only sha256 digests"
    )
    assert not scene.registry.asked


async def test_bytes_after_a_body_are_not_the_next_response(scene):
    blob = scene.blob
    head = faults.HEAD_OK + b"Content-Length: %d\r\n\r\n" % len(blob)
    scene.registry.on(
        BLOBS, faults.sends(head + blob + faults.HEAD_OK + b"Content-Length: 2\r\n\r\n{}"), honest
    )
    client, sink = scene.client(), MemorySink()
    await client.blob(scene.reference, scene.layer, sink)
    assert sink.content == blob
    assert (
        await client.document(scene.reference, scene.config)
        == scene.registry.content.blobs[scene.config.digest]
    )


async def test_a_complete_body_needs_no_end_of_message(scene):
    scene.registry.on(BLOBS, faults.chunked(scene.blob, ends=False))
    sink = MemorySink()
    await scene.client().blob(scene.reference, scene.layer, sink)
    assert sink.content == scene.blob
    assert len(scene.registry.asked) == 1


async def test_a_corrupt_mirror_is_skipped_and_tried_last(scene):
    mirror, blob = scene.other_host, scene.blob
    scene.hosts(
        "registry.example",
        f'server = "http://{scene.registry.authority}"\n[host."http://{mirror.authority}"]',
    )
    reference = parse("registry.example/team/app:v1")
    mirror.on("(GET|HEAD)", faults.HTML)
    client = scene.client()
    assert len(await pull(client, reference)) == 3
    assert len(mirror.asked) == 1
    mirror.on("GET /v2/team/app/blobs/", faults.answers(200, b"x" * len(blob)))
    distrusted, sink = scene.client(), MemorySink()
    await refused(
        distrusted.blob(reference, scene.layer, sink),
        DataLoss,
        f"{mirror.authority}: the content does not have",
    )
    assert len(sink.content) == len(blob), "garbage, says DataLoss"
    fresh = MemorySink()
    await distrusted.blob(reference, scene.layer, fresh)
    assert fresh.content == blob


DEAD = [
    ("a timeout", faults.stalls()),
    ("a timeout within the body", faults.stalls(faults.HEAD_OK + b"Content-Length: 300000\r\n\r\n")),
    ("a hang-up", faults.sends(b"")),
    ("an outage", faults.answers(503)),
]


@pytest.mark.parametrize("behaviour", [one[1] for one in DEAD], ids=[one[0] for one in DEAD])
async def test_a_dead_mirror_is_asked_once_and_not_for_every_blob(scene, behaviour):
    mirror = scene.other_host
    scene.hosts(
        "registry.example",
        f'server = "http://{scene.registry.authority}"\n[host."http://{mirror.authority}"]',
    )
    mirror.on("(GET|HEAD)", behaviour)
    client = scene.client()
    assert len(await pull(client, parse("registry.example/team/app:v1"))) == 3
    assert len({one.target for one in mirror.asked}) == 1
    asked = len(mirror.asked)
    assert len(await pull(client, parse("registry.example/team/app:v1"))) == 3
    assert len(mirror.asked) == asked


async def test_a_mirror_that_refuses_connections_is_skipped(scene):
    mirror = scene.other_host.authority
    await scene.other_host.stop()
    scene.hosts("registry.example", f'server = "http://{scene.registry.authority}"\n[host."http://{mirror}"]')
    assert len(await pull(scene.client(), parse("registry.example/team/app:v1"))) == 3


@pytest.mark.parametrize(
    "name", ["a" * 63 + ".example", "xn--0.example", "1.2.3.4.5", "[::1%lo]", "0.0.0.0.0:1"]
)
async def test_unresolvable_host_names_fail_with_one_line(scene, name):
    """Names that are well-formed enough to be looked up, and others."""
    call = scene.client().resolve(Reference(name, "a/b", "t"))
    await refused(call, Unavailable, "cannot|is invalid")
