"""Credentials: AuthConfig of a pull, and the node's own file."""

import base64
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1.api_pb2 import AuthConfig
from noderuntime.images.credentials import Credentials, CredentialsFile, from_cri


def auth(text):
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, None),
        ({"username": "u", "password": "p"}, Credentials("u", "p")),
        ({"username": "u"}, Credentials("u")),
        ({"password": "p"}, None),
        ({"auth": auth("u:p")}, Credentials("u", "p")),
        ({"auth": auth("u:p:q")}, Credentials("u", "p:q")),
        ({"auth": auth("u:p\0\0")}, Credentials("u", "p")),
        ({"auth": auth("\u00fc:\u00df")}, Credentials("\u00fc", "\u00df")),
        ({"auth": auth("u:p") + "\n"}, Credentials("u", "p")),
        ({"username": "u", "password": "p", "auth": auth("x:y")}, Credentials("u", "p")),
        ({"identity_token": "i"}, Credentials(identity_token="i")),
        ({"username": "<token>", "password": "i"}, Credentials(identity_token="i")),
        ({"auth": auth("<token>:i")}, Credentials(identity_token="i")),
        ({"auth": auth("<token>:"), "identity_token": "i"}, Credentials(identity_token="i")),
        ({"registry_token": "r"}, Credentials(registry_token="r")),
    ],
)
def test_authconfig_is_converted(given, found):
    assert from_cri(AuthConfig(**given), "registry.example") == found


@pytest.mark.parametrize(
    ("address", "registry", "ours"),
    [
        ("", "registry.example", True),
        ("registry.example", "registry.example", True),
        ("https://registry.example", "registry.example", True),
        ("https://index.docker.io/v1/", "docker.io", True),
        ("registry.example:5000", "registry.example", False),
        ("other.example", "registry.example", False),
        ("other.example/registry.example", "registry.example", False),
    ],
)
def test_credentials_for_another_server_are_not_used(address, registry, ours):
    given = AuthConfig(username="u", password="p", server_address=address)
    assert from_cri(given, registry) == (Credentials("u", "p") if ours else None)


@pytest.mark.parametrize(
    "text", ["%%%", "c2VjcmV0", "c2VjcmV0OnA", "\u00fc", base64.b64encode(b"\xff:\xff").decode()]
)
def test_an_invalid_auth_is_an_error_without_its_value(text):
    with pytest.raises(
        InvalidArgument, match="the pull's AuthConfig: auth is not base64 of user:password"
    ) as caught:
        from_cri(AuthConfig(auth=text), "registry.example")
    assert text not in str(caught.value)


@pytest.mark.parametrize("token", ["two\nlines", "a b", "\u00fc", "t\r\nX-Evil: 1"])
def test_an_invalid_token_is_an_error_without_its_value(token):
    with pytest.raises(InvalidArgument, match="contains invalid characters") as caught:
        from_cri(AuthConfig(registry_token=token), "registry.example")
    assert token not in str(caught.value)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    fields=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(AuthConfig.DESCRIPTOR.fields_by_name, st.text(max_size=12))
    )
)
def test_any_authconfig_is_converted_or_rejected(fields):
    try:
        found = from_cri(AuthConfig(**fields), "registry.example")
    except InvalidArgument:
        return
    assert found is None or bool(found)


def test_repr_hides_credentials():
    shown = f"{Credentials('u', 'secret')!r} {Credentials(registry_token='secret')}"
    assert "secret" not in shown


@pytest.fixture
def file(tmp_path):
    return tmp_path / "config.json"


async def find(file, entries, registry="registry.example", repository="team/app"):
    file.write_text(json.dumps({"auths": entries}))
    return await CredentialsFile(file).find(registry, repository)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"auth": auth("u:p")}, Credentials("u", "p")),
        ({"username": "u", "password": "p", "email": "e"}, Credentials("u", "p")),
        ({"identitytoken": "i"}, Credentials(identity_token="i")),
        ({"auth": auth("<token>:"), "identitytoken": "i"}, Credentials(identity_token="i")),
        ({"registrytoken": "r"}, Credentials(registry_token="r")),
        ({}, None),
    ],
)
async def test_entries_of_the_file_are_converted(file, entry, found):
    assert await find(file, {"registry.example": entry}) == found
    assert await find(file, {"registry.example": entry}, "other.example") is None


@pytest.mark.parametrize(
    ("keys", "registry", "repository", "first"),
    [
        (["https://index.docker.io/v1/"], "docker.io", "library/app", 0),
        (["https://registry.example/v2/"], "registry.example", "team/app", 0),
        (["registry.example", "registry.example/team"], "registry.example", "team/app", 1),
        (["registry.example/team", "registry.example"], "registry.example", "team/app", 0),
        (["registry.example/team", "registry.example/team/app"], "registry.example", "team/app", 1),
        (["registry.example/team", "registry.example"], "registry.example", "teams/app", 1),
        (["registry.example/team"], "registry.example", "other/app", None),
        (["registry.example/team/app"], "registry.example", "team/app", 0),
        (["registry.example:5000"], "registry.example", "team/app", None),
    ],
)
async def test_the_most_specific_key_is_used(file, keys, registry, repository, first):
    entries = {key: {"username": str(number)} for number, key in enumerate(keys)}
    found = await find(file, entries, registry, repository)
    assert found == (None if first is None else Credentials(str(first)))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" \n",
        b"{}",
        b'{"auths": null}',
        b'{"auths": {"registry.example": null}}',
        b'{"auths": {"registry.example": {"auth": null}}}',
        b'{"credHelpers": {"other.example": "none"}}',
        b'{"credsStore": ""}',
        b'{"credHelpers": null, "credsStore": null, "HttpHeaders": {"User-Agent": "x"}}',
        b'{"credHelpers": {"registry.example": "not-installed"}, "credsStore": "not-installed"}',
    ],
)
async def test_a_file_without_an_entry_is_an_anonymous_pull(file, raw):
    file.write_bytes(raw)
    assert await CredentialsFile(file).find("registry.example", "app") is None


async def test_a_new_file_applies_at_once(file):
    known = CredentialsFile(file)
    assert await known.find("registry.example", "app") is None
    await find(file, {"registry.example": {"username": "u"}})
    assert await known.find("registry.example", "app") == Credentials("u")


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b'{"auths": []}',
        b'{"credsStore": "../../evil"}',
        b'{"credHelpers": {"registry.example": "a b"}}',
        b'{"credHelpers": ["pass"]}',
        b'{"auths": {"registry.example": "secret-word"}}',
        b'{"auths": {"registry.example": {"password": ["secret-word"]}}}',
        b'{"auths": {"registry.example": {"password": "\\ud800 secret-word"}}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_an_invalid_file_is_named_without_its_content(file, raw):
    file.write_bytes(raw)
    with pytest.raises(InvalidArgument, match="the format must be") as caught:
        await CredentialsFile(file).find("registry.example", "app")
    assert str(file) in str(caught.value)
    assert "secret-word" not in f"{caught.value}{caught.value.__cause__}"


async def test_a_file_that_cannot_be_read_is_named(file, tmp_path):
    with pytest.raises(InvalidArgument, match="Is a directory"):
        await CredentialsFile(tmp_path).find("registry.example", "app")
    file.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(InvalidArgument, match="larger than 1048576 bytes"):
        await CredentialsFile(file).find("registry.example", "app")
    with pytest.raises(InvalidArgument, match="auth is not base64"):
        await find(file, {"registry.example": {"auth": "secret"}})
