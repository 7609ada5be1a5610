"""Credentials for registries: those of a pull, and those in the node's own file.

The file has the format of Docker's ``config.json``, and is read for every pull, so that a rotated password
needs no restart:

    {"auths": {"registry.example": {"auth": "…"}},     user and password, base64
     "credHelpers": {"registry.example": "ecr-login"}, docker-credential-ecr-login knows them
     "credsStore": "pass"}                             and docker-credential-pass those of all others

A registry without an entry is asked without credentials.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument, invalid_argument
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.credential_helpers import CredentialHelpers
from noderuntime.images.oci import Document
from noderuntime.images.reference import same_registry

_FILE_LIMIT = 1 << 20
_BEARER = re.compile(r"[\x21-\x7e]*")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A user and password, an identity (refresh) token, or a registry (bearer) token. Hidden in repr."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return "Credentials(hidden)"

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


def from_cri(auth: api_pb2.AuthConfig, registry: str) -> Credentials | None:
    """Return the credentials of PullImage, or None if they are for another server.

    InvalidArgument if ``auth`` is not base64 of ``user:password``, or a token is invalid.
    """
    if auth.server_address and not same_registry(auth.server_address, registry):
        return None
    given = Credentials(auth.username, auth.password, auth.identity_token, auth.registry_token)
    return _completed(given, auth.auth, "the pull's AuthConfig")


class _Entry(Document):
    """The credentials for one registry. Unknown keys are ignored, they belong to other tools."""

    model_config = ConfigDict(hide_input_in_errors=True)

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


_HelperName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _File(Document):
    model_config = ConfigDict(hide_input_in_errors=True)

    auths: dict[str, _Entry | None] = Field(default={})
    helpers: dict[str, _HelperName] = Field(default={}, alias="credHelpers")
    store: _HelperName | Literal[""] = Field(default="", alias="credsStore")
    """The helper for all registries without another and without an entry in ``auths``."""

    def helper_of(self, registry: str) -> str:
        """Return the name of the helper that is configured for a registry, or ""."""
        return next((name for key, name in self.helpers.items() if same_registry(key, registry)), "")


class CredentialsFile:
    """The node's own credentials."""

    def __init__(self, path: Path | None) -> None:
        """Use a file. None is equal to an empty file."""
        self._path = path
        self._helpers = CredentialHelpers()

    def use(self, path: Path | None) -> None:
        """Use this file from now on."""
        self._path = path

    async def check(self) -> None:
        """Raise InvalidArgument if the file is invalid."""
        if self._path is not None:
            await FILES.run(_read, self._path)

    async def find(self, registry: str, repository: str) -> Credentials | None:
        """Return the credentials for a repository, if any. InvalidArgument if the file is invalid.

        Those of the registry's own helper take precedence, then those in the file. A key there can have a
        path after the registry, which limits it to repositories below. The longest wins.
        """
        path = self._path
        if path is None:
            return None
        file = await FILES.run(_read, path)
        return (
            await self._from_helper(file.helper_of(registry), registry)
            or _from_entries(file.auths, registry, repository, f"credentials {path}")
            or await self._from_helper(file.store, registry)
        )

    async def _from_helper(self, name: str, registry: str) -> Credentials | None:
        found = await self._helpers.get(name, registry) if name else None
        if found is None:
            return None
        return _completed(Credentials(found.username, found.secret), "", f"credential helper {name}")


def _from_entries(
    entries: Mapping[str, _Entry | None], registry: str, repository: str, source: str
) -> Credentials | None:
    keys = [key for key in entries if _matches(key, registry, repository)]
    entry = entries[max(keys, key=lambda key: len(_path(key)))] if keys else None
    if entry is None:
        return None
    given = Credentials(entry.username, entry.password, entry.identitytoken, entry.registrytoken)
    return _completed(given, entry.auth, source)


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except FileNotFoundError:
        return _File()
    except OSError as error:
        raise invalid_argument(f"credentials {path}", error) from error
    if len(raw) > _FILE_LIMIT:
        raise InvalidArgument(f"credentials {path}: larger than {_FILE_LIMIT} bytes")
    try:
        return _File.model_validate_json(raw.strip() or b"{}")
    except ValidationError as error:
        raise InvalidArgument(
            f'credentials {path}: the format must be {{"auths": {{"registry": {{"auth": "..."}}}}}}, '
            "with credHelpers and credsStore as in Docker's config.json"
        ) from error


def _matches(key: str, registry: str, repository: str) -> bool:
    path = _path(key)
    return same_registry(key, registry) and f"{repository}/".startswith(f"{path}/" if path else "")


def _path(key: str) -> str:
    """Return the path after the host, without the API version that some tools write there."""
    path = (key.partition("://")[2] or key).partition("/")[2]
    return re.sub(r"\Av[12](?:/|\Z)", "", path).strip("/")


def _completed(given: Credentials, auth: str, source: str) -> Credentials | None:
    """Return the credentials with the user, password or identity token of ``auth`` filled in."""
    if auth and not given.username:
        username, password = _decode(auth, source)
        given = replace(given, username=username, password=password)
    if given.username == "<token>":  # Docker's notation of an identity token
        given = replace(
            given, username="", password="", identity_token=given.identity_token or given.password
        )
    if not _BEARER.fullmatch(given.registry_token):
        raise InvalidArgument(f"{source}: the registry token contains invalid characters")
    return given or None


def _decode(auth: str, source: str) -> tuple[str, str]:
    try:
        decoded = base64.b64decode("".join(auth.split()), validate=True).decode()
    except ValueError:
        decoded = ""
    username, colon, password = decoded.partition(":")
    if not colon:
        raise InvalidArgument(f"{source}: auth is not base64 of user:password")
    return username, password.strip("\0")
