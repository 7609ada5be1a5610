"""Authenticates to registries: basic credentials, or a bearer token from the host's token server.

A host selects the scheme and the token server (``WWW-Authenticate``), and it is not trusted. So
credentials go only to the token server that this host names, over TLS; plain HTTP is used only
if it is allowed for both. A token is cached per host, repository and credentials, and renewed when
it expires during a pull. A second 401 for the same request is an error.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Literal, Protocol
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from noderuntime.core.errors import DataLoss, PermissionDenied, Unavailable
from noderuntime.images.credentials import Credentials
from noderuntime.images.registry.challenges import Challenge, parse_challenges
from noderuntime.images.registry.endpoints import RegistryHost, Tls, default_host, is_authority
from noderuntime.images.registry.hosts import Hosts
from noderuntime.images.registry.http_client import Request
from noderuntime.images.registry.responses import Response, read_small, status_error
from noderuntime.images.remote import RetryPolicy

_TOKEN_LIMIT = 256 << 10
_SHORTEST_SECONDS = 60.0
_LONGEST_SECONDS = 3600.0
_USED_PART = 0.8
"""Part of a token's lifetime after which it is renewed: a margin for clock skew and latency."""
_KEPT = 512
_CLIENT = "noderuntime"
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(slots=True)
class _Grant:
    """The Authorization header for one host, repository and credentials, with its challenge."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    header: str = ""
    expires: float = 0.0
    challenge: Challenge | None = None


_Key = tuple[str, str, Credentials | None]


class TokenClient(Protocol):
    """The part of :class:`noderuntime.images.registry.http_client.Web` that fetches tokens."""

    def ask(self, host: RegistryHost, request: Request) -> AbstractAsyncContextManager[Response]:
        """Send a request and yield the response as soon as its headers have arrived."""


class Authorizer:
    """The Authorization headers for all hosts, fetched on demand and cached."""

    def __init__(
        self, web: TokenClient, hosts: Hosts, policy: RetryPolicy, clock: Callable[[], float] = monotonic
    ) -> None:
        self._clock = clock
        self._web = web
        self._hosts = hosts
        self._policy = policy
        self._grants: OrderedDict[_Key, _Grant] = OrderedDict()

    async def header(self, host: RegistryHost, repository: str, credentials: Credentials | None) -> str:
        """Return the Authorization header for a request. It is empty until the host has sent a challenge."""
        grant = self._grant(host, repository, credentials)
        if grant.challenge is not None and self._clock() >= grant.expires:
            async with grant.lock:
                if grant.challenge is not None and self._clock() >= grant.expires:
                    await self._obtain(grant, grant.challenge, host, repository, credentials)
        return grant.header

    async def renew(
        self,
        host: RegistryHost,
        repository: str,
        credentials: Credentials | None,
        refused: str,
        challenges: Iterable[str],
    ) -> None:
        """Replace the header ``refused``, which the host answered with 401, see :meth:`header`.

        PermissionDenied if no scheme or no credentials fit the challenges, Unavailable if the token server
        does not respond.
        """
        grant = self._grant(host, repository, credentials)
        async with grant.lock:
            if grant.header == refused:
                challenge = _choose(host, parse_challenges(challenges), credentials)
                await self._obtain(grant, challenge, host, repository, credentials)

    def _grant(self, host: RegistryHost, repository: str, credentials: Credentials | None) -> _Grant:
        key = (f"{host.scheme}://{host.authority}{host.path}", repository, credentials)
        grant = self._grants.setdefault(key, _Grant())
        self._grants.move_to_end(key)
        if len(self._grants) > _KEPT:
            self._grants.popitem(last=False)
        return grant

    async def _obtain(
        self,
        grant: _Grant,
        challenge: Challenge,
        host: RegistryHost,
        repository: str,
        credentials: Credentials | None,
    ) -> None:
        """Fill the grant. After an error it has no challenge, so that the next 401 supplies a new one."""
        grant.challenge = None
        lifetime = float("inf")
        if challenge.scheme == "basic":
            header = _basic(credentials or Credentials())
        elif credentials and credentials.registry_token:
            header = f"Bearer {credentials.registry_token}"
        else:
            token, lifetime = await self._token(challenge, host, repository, credentials)
            header = f"Bearer {token}"
        grant.header, grant.challenge, grant.expires = header, challenge, self._clock() + lifetime

    async def _token(
        self, challenge: Challenge, host: RegistryHost, repository: str, credentials: Credentials | None
    ) -> tuple[str, float]:
        server = await self._token_server(challenge.parameters.get("realm", ""), host)
        request = _token_request(challenge, repository, credentials)
        async with self._web.ask(server, request) as response:
            if response.http.status in {400, 401, 403}:
                raise PermissionDenied(
                    f"{host.authority}: its token server {response.origin} refuses {_subject(credentials)}"
                )
            if response.http.status == 404:
                raise Unavailable(f"{host.authority}: its token server {response.origin} was not found (404)")
            if response.http.status != 200:
                raise await status_error(response)
            raw = await read_small(response, _TOKEN_LIMIT, self._policy.window_seconds)
            return _read_token(raw, response.origin)

    async def _token_server(self, realm: str, host: RegistryHost) -> RegistryHost:
        """Return how to reach the token server of a challenge.

        DataLoss if the realm is not a URL, PermissionDenied if it has no TLS and plain HTTP is not allowed.
        """
        parts = _split(realm)
        if parts is None:
            raise DataLoss(f"{host.authority}: names no valid token server")
        known = host
        if parts.hostname != urlsplit(f"//{host.authority}").hostname:
            known = await self._configured(parts.netloc)
            tls = replace(known.tls, ca=(*host.tls.ca, *known.tls.ca))
            known = replace(known, tls=tls, headers=(), proxy=known.proxy or host.proxy)
        elif parts.netloc != host.authority:
            known = replace(known, tls=replace(known.tls, client=()), headers=())
        if parts.scheme == "http" and not (host.allows_plain and known.allows_plain):
            raise PermissionDenied(
                f"{host.authority}: its token server {parts.netloc} has no TLS, which is required"
            )
        scheme: Literal["http", "https"] = "http" if parts.scheme == "http" else "https"
        return replace(known, scheme=scheme, authority=parts.netloc, may_be_plain=False)

    async def _configured(self, authority: str) -> RegistryHost:
        """Return how to reach a server, without the settings of a mirror that replaces it."""
        known = (await self._hosts.lookup(authority))[-1]
        return known if known.authority == authority else default_host(authority, Tls(), explicit=False)


def _choose(
    host: RegistryHost, challenges: tuple[Challenge, ...], credentials: Credentials | None
) -> Challenge:
    by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
    if "bearer" in by_scheme:
        return by_scheme["bearer"]
    if "basic" not in by_scheme:
        raise PermissionDenied(f"{host.authority}: requires an unsupported authentication scheme")
    if credentials is None or not credentials.username:
        raise PermissionDenied(f"{host.authority}: requires a username and password")
    return by_scheme["basic"]


def _token_request(challenge: Challenge, repository: str, credentials: Credentials | None) -> Request:
    """Return the token request (distribution project, token and OAuth2 specifications)."""
    scopes = challenge.parameters.get("scope", "").split() or [f"repository:{repository}:pull"]
    realm = challenge.parameters["realm"]
    service = challenge.parameters.get("service", "")
    if credentials and credentials.identity_token:
        form = {
            "grant_type": "refresh_token",
            "client_id": _CLIENT,
            "service": service,
            "scope": " ".join(scopes),
        }
        return Request(realm, "POST", form={**form, "refresh_token": credentials.identity_token}, redirects=0)
    query = [("service", service)] if service else []
    query += [("scope", scope) for scope in scopes]
    private = {}
    if credentials and credentials.username:
        query.append(("account", credentials.username))
        private["Authorization"] = _basic(credentials)
    parts = urlsplit(realm)
    joined = "&".join(filter(None, (parts.query, urlencode(query))))
    return Request(urlunsplit((parts.scheme, parts.netloc, parts.path, joined, "")), private=private)


class _Reply(BaseModel):
    """The response of a token server (token specification; OAuth 2 for ``access_token``)."""

    model_config = ConfigDict(hide_input_in_errors=True, allow_inf_nan=False)

    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


def _read_token(raw: bytes, where: str) -> tuple[str, float]:
    """Return a token and its usable lifetime in seconds. DataLoss if the response has none."""
    try:
        reply = _Reply.model_validate_json(raw)
    except ValidationError as error:
        raise DataLoss(f"token server {where}: the response contains no valid token") from error
    token = reply.token or reply.access_token or ""
    if not _TOKEN.fullmatch(token):
        raise DataLoss(f"token server {where}: the response contains no valid token")
    return token, min(max(reply.expires_in or 0.0, _SHORTEST_SECONDS), _LONGEST_SECONDS) * _USED_PART


def _split(realm: str) -> SplitResult | None:
    """Return the parts of a realm, or None if it is not an HTTP URL."""
    try:
        parts = urlsplit(realm)
    except ValueError:
        return None
    usable = parts.scheme in {"http", "https"} and is_authority(parts.netloc) and _TOKEN.fullmatch(realm)
    return parts if usable else None


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _subject(credentials: Credentials | None) -> str:
    return "these credentials" if credentials else "a pull without credentials"
