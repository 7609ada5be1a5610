"""Pulls from the real docker-registry: plain, TLS, passwords, tokens, mirrors. All on loopback."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from registries.content import OCI_INDEX, Content, described
from registries.pki import Authority, Pair
from registries.pulls import pull
from registries.real import RealRegistry
from registries.tokens import IDENTITY, PASSWORD, USER, TokenServer

from noderuntime.core.errors import NoderuntimeError, NotFound, PermissionDenied, Unavailable
from noderuntime.images.credentials import Credentials, CredentialsFile
from noderuntime.images.reference import Reference, parse
from noderuntime.images.registry.client import Registry
from noderuntime.images.registry.hosts import Hosts

REPOSITORY = "team/app"
SECRET = "let-me-in"
HTPASSWD = f"{USER}:$2b$04$7F8dIcrCzR94bQfsXGb4yuFR5Y3aRJUZAf1VvAxdctJUlvkIWupJG\n"


@dataclass
class Place:
    """A directory with one storage and the processes that serve it."""

    directory: Path
    authority: Authority
    content: Content
    started: list[RealRegistry] = field(default_factory=list)

    @property
    def server(self) -> Pair:
        return Pair(self.directory / "server.crt", self.directory / "server.key")

    def registry(self, name: str, *, tls: bool = False, **settings: object) -> RealRegistry:
        if tls:
            pair = {"certificate": str(self.server.cert), "key": str(self.server.key)}
            settings["http"] = {"tls": pair | settings.pop("tls_more", {})}
        started = RealRegistry(self.directory, self.directory / "storage", name, **settings)
        self.started.append(started)
        return started

    def hosts(self, registry: str, toml: str) -> None:
        directory = self.directory / "certs.d" / registry
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts.toml").write_text(toml)

    def trust(self, registry: RealRegistry, more: str = "") -> None:
        self.hosts(
            registry.authority,
            f'server = "https://{registry.authority}"\nca = "{self.authority.pair.cert}"\n{more}',
        )


@pytest.fixture(scope="module")
def storage() -> Iterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="noderuntime-registry-"))
    place = Place(directory, Authority(directory), Content())
    place.authority.issue("server")
    image = place.content.image("v1", (1000, 3 << 20, 0))
    place.content.image("docker", (2000,), docker=True)
    place.content.manifest(
        OCI_INDEX,
        {"manifests": [described(image) | {"platform": {"os": "linux", "architecture": "amd64"}}]},
        "multi",
    )
    try:
        plain = place.registry("push")
        plain.push(REPOSITORY, place.content)
        plain.stop()
        yield place
    finally:
        for registry in place.started:
            registry.stop()
        shutil.rmtree(directory)


@pytest.fixture
def place(storage: Place) -> Iterator[Place]:
    before = list(storage.started)
    yield storage
    for registry in storage.started[len(before) :]:
        registry.stop()
    shutil.rmtree(storage.directory / "certs.d", ignore_errors=True)


@pytest.fixture
async def client(place: Place) -> AsyncIterator[Callable[..., Registry]]:
    made: list[Registry] = []

    def make(credentials: Path | None = None) -> Registry:
        file = CredentialsFile(credentials) if credentials else None
        made.append(Registry(Hosts([place.directory / "certs.d"]), file))
        return made[-1]

    yield make
    for registry in made:
        await registry.close()


def at(registry: RealRegistry, tag: str = "v1") -> Reference:
    return parse(f"{registry.authority}/{REPOSITORY}:{tag}")


@pytest.mark.parametrize(("tag", "count"), [("v1", 5), ("docker", 3), ("multi", 6)])
async def test_plain_http_on_loopback_needs_no_configuration(place, client, tag, count):
    registry = place.registry("plain")
    assert len(await pull(client(), at(registry, tag))) == count


async def test_a_digest_needs_no_tag(place, client):
    registry = place.registry("plain")
    wanted = place.content.tags["v1"]
    reference = parse(f"{registry.authority}/{REPOSITORY}:gone@{wanted}")
    assert wanted in await pull(client(), reference)


async def test_a_missing_image_is_not_found(place, client):
    registry = place.registry("plain")
    with pytest.raises(NotFound, match=r"gone: 127\.0\.0\.1:[0-9]+: not found \(404\)$"):
        await client().resolve(at(registry, "gone"))


async def test_only_certificates_of_known_authorities_are_accepted(place, client):
    registry = place.registry("tls", tls=True)
    reference = parse(f"{registry.authority}/{REPOSITORY}:v1")
    place.hosts(registry.authority, f'server = "https://{registry.authority}"')
    puller = client()
    with pytest.raises(Unavailable, match="certificate is not accepted"):
        await puller.resolve(reference)
    place.trust(registry)
    assert len(await pull(puller, reference)) == 5, "the file is read for every pull"


async def test_tls_on_loopback_is_detected(place, client):
    assert len(await pull(client(), at(place.registry("tls", tls=True)))) == 5


async def test_client_certificates(place, client):
    registry = place.registry("mutual", tls=True, tls_more={"clientcas": [str(place.authority.pair.cert)]})
    pair = place.authority.issue("client")
    place.trust(registry)
    puller = client()
    with pytest.raises(Unavailable):
        await puller.resolve(at(registry))
    place.trust(registry, f'client = [["{pair.cert}", "{pair.key}"]]')
    assert len(await pull(puller, at(registry))) == 5


def with_passwords(place: Place, name: str = "basic", **settings: object) -> RealRegistry:
    (place.directory / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(place.directory / "htpasswd")}}
    return place.registry(name, auth=auth, **settings)


async def test_user_and_password(place, client):
    registry = with_passwords(place, tls=True)
    place.trust(registry)
    assert len(await pull(client(), at(registry), Credentials(USER, SECRET))) == 5


@pytest.mark.parametrize(
    "credentials", [None, Credentials(USER, "wrong-secret"), Credentials(registry_token="t")]
)
async def test_a_missing_or_wrong_password_is_denied(place, client, credentials):
    registry = with_passwords(place)
    with pytest.raises(PermissionDenied) as caught:
        await client().resolve(at(registry), credentials)
    assert "wrong-secret" not in str(caught.value)
    assert 1 <= registry.log().count('"HEAD /v2/team/app/manifests/v1 ') <= 2, "it is not repeated"


async def test_the_nodes_own_credentials_file(place, client):
    registry = with_passwords(place)
    file = place.directory / "config.json"
    file.write_text(json.dumps({"auths": {registry.authority: {"username": USER, "password": SECRET}}}))
    assert len(await pull(client(file), at(registry))) == 5


@pytest.mark.parametrize("kind", ["credHelpers", "credsStore"])
async def test_a_credential_helper_of_the_node(place, client, tmp_path, monkeypatch, kind):
    registry = with_passwords(place)
    helper = tmp_path / "docker-credential-vault"
    answer = json.dumps({"ServerURL": registry.authority, "Username": USER, "Secret": SECRET})
    helper.write_text(
        f"#!/bin/sh\necho >>{tmp_path}/calls\n[ $(cat) = {registry.authority} ] && echo '{answer}'\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({kind: {registry.authority: "vault"} if kind == "credHelpers" else "vault"}))
    assert len(await pull(client(file), at(registry))) == 5
    assert len((tmp_path / "calls").read_text()) == 1, "once for all requests"


@pytest.mark.parametrize(
    "raw", ["", "{}", '{"credHelpers": {"x.example": "none"}}', '{"credsStore": "none"}']
)
async def test_a_credentials_file_without_an_entry_pulls_anonymously(place, client, tmp_path, raw):
    file = tmp_path / "config.json"
    file.write_text(raw)
    assert len(await pull(client(file), at(place.registry("plain")))) == 5


@pytest.fixture
async def tokens(place: Place) -> AsyncIterator[TokenServer]:
    server = TokenServer(place.server)
    yield server
    await server.stop()


async def with_tokens(place: Place, tokens: TokenServer) -> RealRegistry:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(place.server.cert, place.server.key)
    await tokens.start(context)
    settings = {
        "realm": f"https://{tokens.authority}/token",
        "service": "test registry",
        "issuer": "test-issuer",
        "rootcertbundle": str(place.server.cert),
    }
    registry = place.registry("token", tls=True, auth={"token": settings})
    place.trust(registry)
    return registry


async def test_a_token_for_user_and_password_is_fetched_once(place, client, tokens):
    registry = await with_tokens(place, tokens)
    puller = client()
    for _ in range(2):
        assert len(await pull(puller, at(registry), Credentials(USER, PASSWORD))) == 5
    assert len(tokens.requests) == 1
    method, asked, _ = tokens.requests[0]
    assert (method, asked["service"], asked["scope"]) == (
        "GET",
        "test registry",
        f"repository:{REPOSITORY}:pull",
    )


async def test_a_token_for_an_identity_token(place, client, tokens):
    registry = await with_tokens(place, tokens)
    assert len(await pull(client(), at(registry), Credentials(identity_token=IDENTITY))) == 5
    assert [method for method, *_ in tokens.requests] == ["POST"]


async def test_a_registry_token_of_the_pull_is_used(place, client, tokens):
    registry = await with_tokens(place, tokens)
    access = [{"type": "repository", "name": REPOSITORY, "actions": ["pull"]}]
    token = tokens.signed("test registry", access)
    assert len(await pull(client(), at(registry), Credentials(registry_token=token))) == 5
    assert tokens.requests == []


async def test_a_token_server_that_refuses(place, client, tokens):
    registry = await with_tokens(place, tokens)
    with pytest.raises(PermissionDenied, match="refuses these credentials"):
        await client().resolve(at(registry), Credentials(USER, "wrong-secret"))
    with pytest.raises(PermissionDenied, match="refuses a pull without credentials"):
        await client().resolve(at(registry))


async def test_mirrors_come_first_and_the_registry_last(place, client):
    registry, mirror = place.registry("upstream"), place.registry("mirror")
    dead = RealRegistry(place.directory, place.directory / "storage", "dead")
    dead.stop()
    empty = RealRegistry(place.directory, place.directory / "nothing", "empty")
    place.started.append(empty)
    toml = f'server = "http://{registry.authority}"\n'
    for one in (dead, empty, mirror):
        toml += f'[host."http://{one.authority}"]\n'
    place.hosts("registry.example", toml)
    assert len(await pull(client(), parse(f"registry.example/{REPOSITORY}:v1"))) == 5
    assert f"/v2/{REPOSITORY}/" not in registry.log(), "the mirror had everything"
    assert "ns=registry.example" in mirror.log()
    mirror.stop()
    assert len(await pull(client(), parse(f"registry.example/{REPOSITORY}:v1"))) == 5
    registry.stop()
    with pytest.raises(NoderuntimeError) as caught:
        await client().resolve(parse(f"registry.example/{REPOSITORY}:v1"))
    assert all(one.authority in str(caught.value) for one in (registry, mirror, dead, empty))
    assert "\n" not in str(caught.value)


async def test_a_mirror_without_resolve_serves_blobs_only(place, client):
    registry, mirror = place.registry("upstream"), place.registry("mirror")
    place.hosts(
        "registry.example",
        f'server = "http://{registry.authority}"\n'
        f'[host."http://{mirror.authority}"]\ncapabilities = ["pull"]\n',
    )
    await pull(client(), parse(f"registry.example/{REPOSITORY}:v1"))
    assert "manifests/v1" in registry.log()
    assert "/blobs/" not in registry.log()
    assert "manifests/v1" not in mirror.log()


async def test_a_pulls_credentials_are_not_for_mirrors(place, client):
    registry, mirror = with_passwords(place), with_passwords(place, "mirror")
    place.hosts(
        "registry.example", f'server = "http://{registry.authority}"\n[host."http://{mirror.authority}"]\n'
    )
    await pull(client(), parse(f"registry.example/{REPOSITORY}:v1"), Credentials(USER, SECRET))
    assert '"GET /v2/team/app/blobs' in registry.log()
    assert '" 200 ' not in mirror.log()
