"""Credentials are sent to the registry and to the token server that it names only.

That neither the other host nor the log hears a secret is checked after every test, by its scene.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator

import pytest
from registries import faults
from registries.hostile import FaultyRegistry, honest
from registries.pki import Authority
from registries.pulls import pull
from registries.scene import BEARER, IDENTITY, USER, Scene, refused, scene_of
from registries.sink import MemorySink

from noderuntime.core.errors import DataLoss, InvalidArgument, PermissionDenied, Unavailable
from noderuntime.images.reference import parse

BLOBS = "GET /v2/team/app/blobs/"
EVERYTHING = "(GET|HEAD) /v2/"
TOKEN = "(GET|POST) /token"


@pytest.fixture
async def scene(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    async with scene_of(caplog) as scene:
        yield scene


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_has_no_credentials(scene, status):
    desk = faults.Desk(scene.registry)
    to = f"http://{scene.other_host.authority}{{path}}"
    scene.registry.on(BLOBS, desk.guard(faults.redirects(to, status)))
    scene.other_host.on("GET", faults.answers(200, scene.blob, Set_Cookie="a=b"))
    sink = MemorySink()
    await scene.client().blob(scene.reference, scene.layer, sink, USER)
    assert sink.content == scene.blob
    assert scene.registry.seen(BLOBS)[-1].headers["authorization"] == "Bearer minted-token-1"
    assert len(scene.other_host.asked) == 1


async def test_a_redirect_to_another_port_has_no_credentials(scene):
    """Both servers of a scene are 127.0.0.1. Configured headers are sent to the registry only, too."""
    scene.hosts(
        scene.registry.authority,
        f'server = "http://{scene.registry.authority}"\nheader = {{ X-Key = "header-secret" }}',
    )
    scene.registry.on(
        BLOBS, faults.wants_password(faults.redirects(f"http://{scene.other_host.authority}{{path}}"))
    )
    sink = MemorySink()
    await scene.client().blob(scene.reference, scene.layer, sink, USER)
    assert scene.registry.asked[-1].headers["x-key"] == "header-secret"
    assert scene.other_host.asked[0].headers.keys() & {"x-key", "authorization"} == set()


async def test_a_401_of_a_redirect_target_gets_no_credentials(scene):
    scene.registry.on(
        BLOBS, faults.wants_password(faults.redirects(f"http://{scene.other_host.authority}/x"))
    )
    scene.other_host.on("GET", faults.wants_password())
    call = scene.client().blob(scene.reference, scene.layer, MemorySink(), USER)
    await refused(call, PermissionDenied, f"{scene.other_host.authority}: access denied")
    assert len(scene.other_host.asked) == 1


async def test_cookies_are_not_sent_back(scene):
    scene.registry.on(EVERYTHING, faults.answers(429, Set_Cookie="track=me", Retry_After=0), honest)
    await pull(scene.client(), scene.reference)
    assert not [one for one in scene.registry.asked if "cookie" in one.headers]


@pytest.mark.parametrize(
    ("to", "kind", "words"),
    [
        ("{path}", Unavailable, "more than 5 redirects"),
        ("http://{authority}{path}x", Unavailable, "more than 5 redirects"),
        ("", DataLoss, "redirects to an invalid URL"),
        ("file:///etc/shadow", DataLoss, "redirects to an invalid URL"),
        ("//", Unavailable, "more than 5 redirects"),
        ("http://user:password@{authority}/", DataLoss, "redirects to an invalid URL"),
        ("http://{authority}/a b", DataLoss, "redirects to an invalid URL"),
        ("http://{authority}:1/", DataLoss, "redirects to an invalid URL"),
        ("http://[::1/", DataLoss, "redirects to an invalid URL"),
        ("http://127.0.0.1:99999/", DataLoss, "redirects to an invalid URL"),
        ("http://h\u00f6st/", DataLoss, "redirects to an invalid URL"),
        ("http://a..b/", Unavailable, "its name cannot be resolved"),
        (f"http://{'a' * 64}/", Unavailable, "its name cannot be resolved"),
        ("http://127.0.0.1:1/", Unavailable, "cannot connect: connection refused"),
    ],
)
async def test_an_invalid_redirect_fails_with_one_line(scene, to, kind, words):
    scene.registry.on(BLOBS, faults.redirects(to.replace("{authority}", scene.registry.authority)))
    await refused(scene.client().blob(scene.reference, scene.layer, MemorySink(), USER), kind, words)
    assert len(scene.registry.asked) <= 6


CHALLENGES = [
    ("nothing", None, "unsupported authentication scheme"),
    ("another scheme", "Negotiate", "unsupported authentication scheme"),
    ("garbage", '="' * 999, "unsupported authentication scheme"),
    ("basic, again and again", 'Basic realm="x"', "access denied"),
]


@pytest.mark.parametrize(("name", "header", "words"), CHALLENGES)
async def test_a_repeated_401_ends_the_pull(scene, name, header, words):
    headers = {"WWW_Authenticate": header} if header else {}
    scene.registry.on(EVERYTHING, faults.answers(401, **headers))
    await refused(scene.client().resolve(scene.reference, USER), PermissionDenied, words)
    assert len(scene.registry.asked) <= 2


async def test_a_password_is_not_sent_before_a_challenge(scene):
    scene.registry.on(EVERYTHING, faults.wants_password())
    await scene.client().resolve(scene.reference, USER)
    assert [("authorization" in one.headers) for one in scene.registry.asked] == [False, True]


async def test_echoed_credentials_are_not_in_errors(scene):
    async def echo(exchange):
        reported = exchange.asked.headers.get("authorization", "")
        if reported:
            await exchange.send(f"HTTP/1.1 200 OK\r\nX-{reported}\x01: {reported}\r\n\r\n".encode())
        else:
            await faults.wants_password()(exchange)

    scene.registry.on(EVERYTHING, echo)
    await refused(scene.client().resolve(scene.reference, USER), Unavailable, "is not valid HTTP")
    errors = json.dumps({"errors": [{"code": "pa:ss-secret", "message": "pa:ss-secret"}]}).encode()
    scene.registry.on(EVERYTHING, faults.wants_password(faults.answers(403, errors)))
    await refused(scene.client().resolve(scene.reference, USER), PermissionDenied, "denied")


@pytest.mark.parametrize("credentials", [USER, IDENTITY, BEARER])
@pytest.mark.parametrize("way", ["basic", "token"])
async def test_a_mirror_does_not_get_the_registrys_password(scene, credentials, way):
    """Nor does it get the password by naming a token server."""
    mirror = scene.other_host.authority
    scene.hosts("registry.example", f'server = "http://{scene.registry.authority}"\n[host."http://{mirror}"]')
    header = faults.challenge(f"http://{mirror}/token") if way == "token" else 'Basic realm="registry"'
    scene.other_host.on(EVERYTHING, faults.answers(401, WWW_Authenticate=header))
    scene.other_host.on(TOKEN, faults.answers(401))
    await pull(scene.client(), parse("registry.example/team/app:v1"), credentials)
    assert scene.other_host.seen(TOKEN if way == "token" else EVERYTHING)


async def test_the_nodes_credentials_are_sent_to_their_host_only(scene):
    file = scene.directory / "config.json"
    entries = {scene.registry.authority: {"username": "puller", "password": "pa:ss-secret"}}
    file.write_text(json.dumps({"auths": entries}))
    for one in (scene.registry, scene.other_host):
        one.on(EVERYTHING, faults.wants_password())
    client = scene.client(file)
    await pull(client, scene.reference)
    other = parse(f"{scene.other_host.authority}/team/app:v1")
    await refused(client.resolve(other), PermissionDenied, "requires a username and password")


async def test_an_invalid_credentials_file_is_named_not_quoted(scene):
    file = scene.directory / "config.json"
    entry = {"username": 1, "password": ["pa:ss-secret"]}
    file.write_text(json.dumps({"auths": {scene.registry.authority: entry}}))
    await refused(scene.client(file).resolve(scene.reference), InvalidArgument, f"{file}: the format must be")


@pytest.fixture
async def secured(scene: Scene) -> AsyncIterator[FaultyRegistry]:
    """A server like the other one, but with TLS; the registry is also at the same host with TLS."""
    authority = Authority(scene.directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.pair.cert)
    server, client = authority.issue("server"), authority.issue("client")
    context.load_cert_chain(server.cert, server.key)
    context.verify_mode = ssl.CERT_OPTIONAL
    await scene.registry.stop()
    await scene.registry.start(context)
    scene.hosts(
        scene.registry.authority,
        f'server = "https://{scene.registry.authority}"\n'
        f'ca = "{authority.pair.cert}"\nclient = [["{client.cert}", "{client.key}"]]',
    )
    other = FaultyRegistry(scene.registry.content)
    await other.start(context)
    yield other
    await other.stop()


async def test_a_client_certificate_is_sent_to_its_host_only(scene, secured):
    scene.registry.on(BLOBS, faults.redirects(f"https://{secured.authority}{{path}}"))
    await pull(scene.client(), scene.reference, USER)
    assert {one.certificate for one in scene.registry.asked} == {True}
    assert [one.certificate for one in secured.asked] == [False, False]


async def test_default_settings_do_not_apply_to_token_servers(scene, secured):
    """Neither a client certificate nor a header of the default mirror is sent there."""
    scene.hosts(
        "_default",
        'server = "https://stand-in.example"\nheader = { X-Key = "header-secret" }\n'
        f'client = [["{scene.directory}/client.crt", "{scene.directory}/client.key"]]',
    )
    realm = f"https://{secured.authority.replace('127.0.0.1', 'localhost')}/token"
    guarded = faults.answers(401, WWW_Authenticate=faults.challenge(realm))
    scene.registry.on(EVERYTHING, guarded, honest)
    secured.on(TOKEN, faults.answers(200, b'{"token": "t"}'))
    await scene.client().resolve(scene.reference, USER)
    assert [one.certificate for one in secured.asked] == [False]
    assert "x-key" not in secured.asked[0].headers
    assert "authorization" in secured.asked[0].headers


def http_redirects(caplog):
    return [one for one in caplog.records if one.getMessage() == "registry host redirects to plain HTTP"]


async def test_blobs_are_followed_from_https_to_http_without_credentials(scene, secured, caplog):
    storage = f"http://{scene.other_host.authority}{{path}}"
    scene.registry.on(BLOBS, faults.wants_password(faults.redirects(storage)))
    client, sink = scene.client(), MemorySink()
    await client.blob(scene.reference, scene.layer, sink, USER)
    await client.document(scene.reference, scene.config, USER)
    assert sink.content == scene.blob
    assert [one.path for one in scene.other_host.asked] == [
        f"/v2/team/app/blobs/{found.digest}" for found in (scene.layer, scene.config)
    ]
    assert len(http_redirects(caplog)) == 1


async def test_content_over_plain_http_must_have_the_digest(scene, secured):
    scene.registry.on(BLOBS, faults.redirects(f"http://{scene.other_host.authority}{{path}}"))
    scene.other_host.on(BLOBS, faults.answers(200, b"x" * len(scene.blob)))
    call = scene.client().blob(scene.reference, scene.layer, MemorySink(), USER)
    await refused(call, DataLoss, "the content does not have the digest")


async def test_redirects_from_https_to_http_can_be_forbidden(scene, secured, caplog):
    scene.registry.on(BLOBS, faults.redirects(f"http://{scene.other_host.authority}{{path}}"))
    client = scene.client()
    client.http_redirects = False
    call = client.blob(scene.reference, scene.layer, MemorySink(), USER)
    await refused(call, Unavailable, "redirects from https to http")
    assert http_redirects(caplog) == []
    assert not scene.other_host.asked


async def test_tags_and_tokens_are_not_followed_from_https_to_http(scene, secured):
    """Nothing verifies what they lead to."""
    scene.registry.on(EVERYTHING, faults.redirects(f"http://{scene.other_host.authority}{{path}}"))
    await refused(scene.client().resolve(scene.reference, USER), Unavailable, "redirects from https to http")
    realm = f"http://{scene.other_host.authority}/token"
    scene.registry.on(EVERYTHING, faults.answers(401, WWW_Authenticate=faults.challenge(realm)))
    await refused(scene.client().resolve(scene.reference, USER), PermissionDenied, "has no TLS")
    assert not scene.other_host.asked
