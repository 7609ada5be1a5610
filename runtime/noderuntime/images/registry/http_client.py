"""Sends one HTTP request to a registry's host: TLS or plain HTTP, redirects, timeouts.

Credentials, configured headers and client certificates are sent to the host itself, never to a host that
it redirects to.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from noderuntime.core import log
from noderuntime.core.errors import DataLoss, Unavailable
from noderuntime.images.registry.endpoints import RegistryHost, is_authority
from noderuntime.images.registry.proxies import proxy_of
from noderuntime.images.registry.responses import Response, connection_error
from noderuntime.images.registry.tls import TlsContexts
from noderuntime.images.remote import RetryPolicy

_log = log.get(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUFFER = 256 << 10
"""Bytes of a body that are buffered; aiohttp buffers twice as many at most."""
_LOGGED = 256
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request to a registry's host."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent to redirect targets too."""
    private: Mapping[str, str] = field(default_factory=dict)
    """Sent to the host only."""
    form: Mapping[str, str] | None = None
    redirects: int = 5
    http_redirects: bool = False
    """Whether to follow a redirect from https to http: only for content whose digest is verified."""


class Web:
    """The HTTP client. Create it inside the event loop."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._contexts = TlsContexts()
        self._plain: set[str] = set()
        self._redirected: set[tuple[str, str]] = set()
        """Hosts and the targets of their redirects from https to http that were logged."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the puller limits parallel requests
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_BUFFER,
            headers={"User-Agent": "noderuntime", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @asynccontextmanager
    async def ask(self, host: RegistryHost, request: Request) -> AsyncIterator[Response]:
        """Send a request and yield the response with any status, as soon as its headers have arrived.

        Unavailable if no response arrives; its subclass Broken if a retry can help.
        """
        response = await self._send(host, request)
        try:
            yield response
        finally:
            response.http.release()

    async def _send(self, host: RegistryHost, request: Request) -> Response:
        """Return the response. A host that allows plain HTTP and does not speak TLS is remembered."""
        plain = host.may_be_plain and host.authority in self._plain
        try:
            async with asyncio.timeout(host.dial_seconds + self._policy.response_seconds):
                return await self._follow(host.plain() if plain else host, request)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            self._plain.discard(host.authority)
            if plain or not host.may_be_plain or not _speaks_no_tls(error):
                raise connection_error(host.authority, error) from error
        self._plain.add(host.authority)
        return await self._send(host, request)

    async def _follow(self, host: RegistryHost, request: Request) -> Response:
        home = URL(request.url, encoded=True).with_scheme(host.scheme)
        target = home
        for _ in range(request.redirects + 1):
            same_origin = _origin(target) == _origin(home)
            at = host if same_origin else _redirect_target(host, target)
            headers = CIMultiDict([*request.headers.items(), *at.headers])
            headers.update(request.private if same_origin else {})
            proxy = proxy_of(at, target)
            response = await self._session.request(
                request.method,
                target,
                headers=headers,
                data=request.form,
                allow_redirects=False,
                ssl=await self._tls(at, target, proxy),
                proxy=proxy,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=host.dial_seconds),
            )
            if response.status not in _REDIRECTS:
                return _readable(Response(response, target.raw_authority, not same_origin))
            response.release()
            target = _redirected(host, target, response.headers.get("Location", ""))
            if target.scheme == "http" and not host.allows_plain:
                self._allow_http(host, target, request)
        raise Unavailable(f"{host.authority}: more than {request.redirects} redirects")

    def _allow_http(self, host: RegistryHost, target: URL, request: Request) -> None:
        """Log the redirect once. Unavailable if it must not be followed."""
        if not request.http_redirects:
            raise Unavailable(f"{host.authority}: redirects from https to http, which is not followed")
        known = (host.authority, target.raw_authority)
        if known not in self._redirected and len(self._redirected) < _LOGGED:
            self._redirected.add(known)
            _log.warning("registry host redirects to plain HTTP", host=known[0], target=known[1])

    async def _tls(self, host: RegistryHost, target: URL, proxy: str | None) -> ssl.SSLContext | bool:
        """Return the TLS context if TLS is used: loading the CA bundle takes long."""
        if target.scheme == "http" and not (proxy or "").startswith("https:"):
            return True
        return await self._contexts.get(host.tls)


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port


def _readable(response: Response) -> Response:
    """Raise DataLoss for an encoded body: none is requested, and a small one can expand without limit."""
    encoding = response.http.headers.get("Content-Encoding", "").lower()
    if response.http.ok and encoding not in {"", "identity"}:
        response.http.release()
        raise DataLoss(f"{response.origin}: sent an encoded body, which was not requested")
    return response


def _redirected(host: RegistryHost, current: URL, location: str) -> URL:
    try:
        target = current.join(URL(location, encoded=True)).with_fragment(None)
        usable = (
            bool(_VISIBLE.fullmatch(location))
            and target.scheme in {"http", "https"}
            and is_authority(target.raw_authority)
        )
    except ValueError:
        usable = False
    if not usable:
        raise DataLoss(f"{host.authority}: redirects to an invalid URL")
    return target


def _redirect_target(host: RegistryHost, target: URL) -> RegistryHost:
    """Return the settings for a redirect's target: those of the host, without what identifies us."""
    return replace(host, authority=target.raw_authority, tls=replace(host.tls, client=()), headers=())


def _speaks_no_tls(error: Exception) -> bool:
    return isinstance(error, aiohttp.ClientConnectorSSLError) or (
        isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionResetError)
    )
