"""Credential helpers: programs with Docker's protocol, which can be missing, hang or print anything."""

import asyncio
import json
import os

import pytest

from noderuntime.core import log
from noderuntime.images.credential_helpers import CredentialHelpers
from noderuntime.images.credentials import Credentials, CredentialsFile

FOUND = """read server
echo "$1 $server" >>"$0.calls"
echo '{"ServerURL": "x", "Username": "u", "Secret": "s"}'"""


class Helpers:
    """A directory of helpers, which is in PATH."""

    def __init__(self, directory):
        self.directory = directory

    def add(self, name, script):
        path = self.directory / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def calls(self, name):
        """Return the arguments and the input of all calls of a helper."""
        path = self.directory / f"docker-credential-{name}.calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def helpers(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Helpers(tmp_path)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "config.json"


async def find(file, content, registry="registry.example"):
    file.write_text(json.dumps(content))
    return await CredentialsFile(file).find(registry, "team/app")


@pytest.mark.parametrize(
    ("content", "registry", "server"),
    [
        ({"credHelpers": {"registry.example": "a"}}, "registry.example", "registry.example"),
        ({"credHelpers": {"https://index.docker.io/v1/": "a"}}, "docker.io", "https://index.docker.io/v1/"),
        ({"credHelpers": {"docker.io": "a"}}, "docker.io", "https://index.docker.io/v1/"),
        ({"credsStore": "a"}, "registry.example:5000", "registry.example:5000"),
        ({"credsStore": "a", "auths": {"registry.example": {}}}, "registry.example", "registry.example"),
    ],
)
async def test_helper_gets_the_registry_and_returns_credentials(helpers, file, content, registry, server):
    helpers.add("a", FOUND)
    assert await find(file, content, registry) == Credentials("u", "s")
    assert helpers.calls("a") == [f"get {server}"]


async def test_helper_can_return_an_identity_token(helpers, file):
    helpers.add("a", """echo '{"Username": "<token>", "Secret": "identity"}'""")
    assert await find(file, {"credsStore": "a"}) == Credentials(identity_token="identity")


async def test_helper_of_the_registry_precedes_the_file_and_the_store(helpers, file):
    helpers.add("own", FOUND)
    helpers.add("store", 'echo \'{"Username": "stored", "Secret": "s"}\'')
    auths = {"registry.example": {"username": "file"}, "other.example": {"username": "file"}}
    content = {"credHelpers": {"registry.example": "own"}, "auths": auths, "credsStore": "store"}
    assert await find(file, content) == Credentials("u", "s")
    assert await find(file, content, "other.example") == Credentials("file")
    assert await find(file, content, "third.example") == Credentials("stored", "s")


async def test_helper_runs_once_for_all_requests_of_a_pull(helpers):
    helpers.add("a", FOUND)
    known = CredentialHelpers()
    found = await asyncio.gather(*(known.get("a", "registry.example") for _ in range(5)))
    found.append(await known.get("a", "registry.example"))
    assert [one.username for one in found] == ["u"] * 6
    assert helpers.calls("a") == ["get registry.example"]


async def test_helper_without_credentials_is_not_an_error(helpers, capsys):
    log.configure("info")
    helpers.add("a", "echo 'credentials not found in native keychain'; exit 1")
    assert await CredentialHelpers().get("a", "registry.example") is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "docker-credential-a is not in "),
        ("echo 'the vault is sealed'; exit 3", "the vault is sealed"),
        ("exec sleep 60", "did not finish within 0.5 s"),
        ("yes secret-word", "did not finish within 0.5 s"),
        ("head -c 1000000 /dev/zero", "no JSON object with Username and Secret"),
        ("head -c 1000000 /dev/urandom; exit 1", "exit status 1"),
        ('echo \'{"Username": ["secret-word"], "Secret": "secret-word"}\'', "no JSON object"),
        ("echo '[]'", "no JSON object"),
        ("true", "no JSON object"),
    ],
)
async def test_failed_helper_is_logged_in_one_line(helpers, capsys, script, reason):
    log.configure("info")
    if script is not None:
        helpers.add("a", script)
    assert await CredentialHelpers(seconds=0.5).get("a", "registry.example") is None
    [line] = capsys.readouterr().err.splitlines()
    assert 'msg="credential helper failed" helper=a registry=registry.example' in line
    assert reason in line
    assert "secret-word" not in line
    assert len(line) < 2000
