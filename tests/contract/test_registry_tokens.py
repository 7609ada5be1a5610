"""Bearer tokens: asked for once, used until they end, and token servers that misbehave.

That neither the other host nor the log hears a secret is checked after every test, by its scene.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from registries import faults
from registries.pulls import pull
from registries.scene import BEARER, IDENTITY, USER, Scene, refused, scene_of
from registries.sink import MemorySink

from noderuntime.core.errors import DataLoss, PermissionDenied, ResourceExhausted, Unavailable
from noderuntime.images.reference import parse

BLOBS = "GET /v2/team/app/blobs/"
EVERYTHING = "(GET|HEAD) /v2/"
TOKEN = "(GET|POST) /token"


@pytest.fixture
async def scene(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    async with scene_of(caplog) as scene:
        yield scene


@pytest.fixture
def desk(scene: Scene) -> faults.Desk:
    """A token server on the registry's own port, and a registry that requires its tokens."""
    return faults.Desk(scene.registry)


def ranges(scene: Scene) -> list[str]:
    return [one.headers.get("range", "") for one in scene.registry.seen(BLOBS)]


async def test_a_rejected_token_ends_the_pull(scene, desk):
    scene.registry.on(EVERYTHING, faults.answers(401, WWW_Authenticate=faults.challenge(desk.realm)))
    await refused(scene.client().resolve(scene.reference, USER), PermissionDenied, "access denied")
    assert len(scene.registry.asked) == 3
    await refused(scene.client().resolve(scene.reference, BEARER), PermissionDenied, "access denied")
    assert desk.given == 1, "who brings a token asks for none"


async def test_credentials_reach_the_token_server_only(scene, desk):
    """A token server can redirect to another host, which gets no credentials."""
    scene.registry.on(TOKEN, faults.redirects(f"http://{scene.other_host.authority}/token", 307))
    scene.other_host.on("(GET|POST)", faults.answers(200, b'{"token": "token-of-other-host"}'))
    await refused(scene.client().resolve(scene.reference, USER), PermissionDenied, "access denied")
    assert "authorization" in scene.registry.seen("GET /token")[0].headers
    assert len(scene.other_host.asked) == 1
    await refused(scene.client().resolve(scene.reference, IDENTITY), Unavailable, "more than 0 redirects")
    assert b"identity-secret" in scene.registry.seen("POST /token")[0].raw
    assert len(scene.other_host.asked) == 1, "a form is not sent on"


TOKENS = [
    ("a page", faults.HTML, DataLoss, "no valid token"),
    ("nothing", faults.answers(200), DataLoss, "no valid token"),
    ("a list", faults.answers(200, b"[]"), DataLoss, "no valid token"),
    ("no token", faults.answers(200, b"{}"), DataLoss, "no valid token"),
    ("a number", faults.answers(200, b'{"token": 1}'), DataLoss, "no valid token"),
    ("two lines", faults.answers(200, b'{"token": "a\\r\\nX-Evil: 1"}'), DataLoss, "no valid token"),
    ("no life", faults.answers(200, b'{"token": "t", "expires_in": "x"}'), DataLoss, "no valid token"),
    ("not a number", faults.answers(200, b'{"token": "t", "expires_in": NaN}'), DataLoss, "no valid token"),
    ("deep nesting", faults.answers(200, b'{"token":' + b"[" * 99_999), DataLoss, "no valid token"),
    ("half a pair", faults.answers(200, b'{"token": "\\ud800"}'), DataLoss, "no valid token"),
    ("too much", faults.answers(200, b" " * faults.MIB), ResourceExhausted, "sent more than 262144 bytes"),
    ("no end", faults.endless(b" "), ResourceExhausted, "more than"),
    ("a bomb", faults.gzipped(b" " * faults.MIB), DataLoss, "sent an encoded body"),
    ("a trickle", faults.trickles(faults.HEAD_OK + b"\r\n"), Unavailable, "takes longer than"),
    ("no answer", faults.stalls(), Unavailable, "timed out"),
    (
        "a refusal",
        faults.answers(401, WWW_Authenticate="Basic"),
        PermissionDenied,
        "refuses these credentials",
    ),
    ("another refusal", faults.answers(400), PermissionDenied, "refuses these credentials"),
    ("not found", faults.answers(404), Unavailable, "was not found"),
    ("a failure", faults.answers(500), Unavailable, "status 500"),
    ("a loop", faults.redirects("/token"), Unavailable, "more than 5 redirects"),
    ("an invalid token", faults.answers(200, b'{"token": "t"}'), PermissionDenied, "access denied"),
]


@pytest.mark.parametrize(**faults.cases(TOKENS))
async def test_an_invalid_token_response_fails_with_one_line(scene, desk, behaviour, kind, words):
    scene.registry.on(TOKEN, behaviour)
    await refused(scene.client().resolve(scene.reference, USER), kind, words)


@pytest.mark.parametrize("life", [-1, 0, 1e300, 10**400, "300", None])
async def test_an_invalid_token_lifetime_is_bounded(scene, desk, life):
    desk.valid.add("Bearer good")
    scene.registry.on(
        TOKEN, faults.answers(200, json.dumps({"access_token": "good", "expires_in": life}).encode())
    )
    client = scene.client()
    if life == 10**400:
        await refused(client.resolve(scene.reference), DataLoss, "no valid token")
        return
    assert len(await pull(client, scene.reference)) == 3
    assert len(scene.registry.seen(TOKEN)) == 1


REALMS = [
    "",
    "/token",
    "file:///etc/passwd",
    "javascript:1",
    "http://",
    "http://u:p@host/",
    "http://a b/",
    "//x",
]


@pytest.mark.parametrize(
    "realm", [*REALMS, "http://[::1/", "http://h:0/", "http://h:99999/", "http://\u00fc/"]
)
async def test_an_invalid_realm_is_rejected(scene, realm):
    scene.registry.on(EVERYTHING, faults.answers(401, WWW_Authenticate=faults.challenge(realm)))
    await refused(scene.client().resolve(scene.reference, USER), DataLoss, "names no valid token server")


async def test_a_token_server_without_tls_is_rejected(scene):
    realm = "http://tokens.example/token"
    scene.registry.on(EVERYTHING, faults.answers(401, WWW_Authenticate=faults.challenge(realm)))
    call = scene.client().resolve(scene.reference, USER)
    await refused(call, PermissionDenied, "tokens.example has no TLS, which is required")


@pytest.mark.parametrize("credentials", [None, USER, IDENTITY, BEARER])
async def test_two_pulls_in_a_row_need_one_token(scene, desk, credentials):
    desk.valid.add(f"Bearer {BEARER.registry_token}")
    client = scene.client()
    for _ in range(2):
        assert len(await pull(client, scene.reference, credentials)) == 3
    assert desk.given == (0 if credentials is BEARER else 1)
    refusals = len([one for one in scene.registry.seen(EVERYTHING) if "authorization" not in one.headers])
    assert refusals == 1, "only the first request did not know better"


async def test_a_token_is_cached_per_credentials(scene, desk):
    client = scene.client()
    await pull(client, scene.reference, USER)
    await pull(client, scene.reference, None)
    await pull(client, scene.reference, replace(USER, password="another"))
    await client.resolve(parse(f"{scene.registry.authority}/other/app:v1"), USER)
    assert desk.given == 4
    scopes = [one.query["scope"] for one in scene.registry.seen(TOKEN)]
    assert scopes == [["repository:team/app:pull"]] * 3 + [["repository:other/app:pull"]]


async def test_concurrent_requests_fetch_one_token(scene, desk):
    client = scene.client()
    sinks = [MemorySink() for _ in range(10)]
    await asyncio.gather(*(client.blob(scene.reference, scene.layer, sink, USER) for sink in sinks))
    assert all(sink.content == scene.blob for sink in sinks)
    assert desk.given == 1


async def test_a_token_that_expires_during_a_pull_is_renewed(scene, desk):
    scene.registry.on(EVERYTHING, desk.once())
    assert len(await pull(scene.client(), scene.reference, USER)) == 3
    assert desk.given == 4, "one for each request"


async def test_a_blob_resumes_after_its_token_expired(scene, desk):
    client, sink = scene.client(), MemorySink()

    async def expires(exchange):
        await faults.cut_after(100_000, sink)(exchange)
        desk.valid.clear()

    scene.registry.on(BLOBS, desk.guard(expires), desk.guard())
    await client.resolve(scene.reference, USER)
    await client.blob(scene.reference, scene.layer, sink, USER)
    assert sink.content == scene.blob
    assert ranges(scene) == ["", "bytes=100000-", "bytes=100000-"]
    assert desk.given == 2


async def test_concurrent_requests_renew_a_token_once(scene, desk):
    client = scene.client()
    await client.resolve(scene.reference, USER)
    desk.valid.clear()
    sinks = [MemorySink() for _ in range(10)]
    await asyncio.gather(*(client.blob(scene.reference, scene.layer, sink, USER) for sink in sinks))
    assert desk.given == 2


async def test_a_token_server_recovers_after_a_failure(scene, desk):
    client = scene.client()
    await client.resolve(scene.reference, USER)
    desk.valid.clear()
    scene.registry.on(TOKEN, faults.answers(503), faults.answers(503), desk.give)
    sinks = [MemorySink() for _ in range(3)]
    await asyncio.gather(*(client.blob(scene.reference, scene.layer, sink, USER) for sink in sinks))
    assert all(sink.content == scene.blob for sink in sinks)


async def test_a_token_server_that_moved_is_found(scene, desk):
    """The old one is not used forever: the registry's challenge names the new one."""
    client = scene.client()
    await client.resolve(scene.reference, USER)
    desk.valid.clear()
    desk.realm = f"http://{scene.registry.authority}/token/new"
    scene.registry.on(TOKEN + "[?]", faults.answers(404))
    await client.resolve(scene.reference, USER)
    assert len(scene.registry.seen(TOKEN)) == 2
