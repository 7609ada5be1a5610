"""One HTTP request to a registry's host: TLS or not, redirects, deadlines.

What identifies us (credentials, configured headers, client certificates) goes to the host
itself and to nobody it sends us to.
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

from noderuntime.core.errors import DataLoss, Unavailable
from noderuntime.images.registry.endpoints import RegistryHost, is_authority
from noderuntime.images.registry.proxies import proxy_of
from noderuntime.images.registry.responses import Answer, failure
from noderuntime.images.registry.tls import TlsContexts
from noderuntime.images.remote import Patience

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUFFER = 256 << 10
"""Bytes of a body that wait in memory; twice as many at most."""
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask a host for."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Go along with redirects."""
    private: Mapping[str, str] = field(default_factory=dict)
    """Do not leave the host."""
    form: Mapping[str, str] | None = None
    redirects: int = 5


class Web:
    """The HTTP client; make it inside the event loop."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._contexts = TlsContexts()
        self._plain: set[str] = set()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # whoever pulls bounds what runs at once
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_BUFFER,
            headers={"User-Agent": "noderuntime", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @asynccontextmanager
    async def ask(self, host: RegistryHost, request: Request) -> AsyncIterator[Answer]:
        """Make a request and yield the answer once its headers are there, whatever its status.

        Unavailable (Broken, where it may pass) when there is no answer.
        """
        answer = await self._answer(host, request)
        try:
            yield answer
        finally:
            answer.response.release()

    async def _answer(self, host: RegistryHost, request: Request) -> Answer:
        """Get an answer in time; a host that may be spoken to without TLS is remembered when it has none."""
        plain = host.may_be_plain and host.authority in self._plain
        try:
            async with asyncio.timeout(host.dial_seconds + self._patience.answer_seconds):
                return await self._follow(host.plain() if plain else host, request)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            self._plain.discard(host.authority)
            if plain or not host.may_be_plain or not _speaks_no_tls(error):
                raise failure(host.authority, error) from error
        self._plain.add(host.authority)
        return await self._answer(host, request)

    async def _follow(self, host: RegistryHost, request: Request) -> Answer:
        home = URL(request.url, encoded=True).with_scheme(host.scheme)
        target = home
        for _ in range(request.redirects + 1):
            at_home = _place(target) == _place(home)
            at = host if at_home else _stranger(host, target)
            headers = CIMultiDict([*request.headers.items(), *at.headers])
            headers.update(request.private if at_home else {})
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
                return _readable(Answer(response, target.raw_authority, not at_home))
            response.release()
            target = _redirected(host, target, response.headers.get("Location", ""))
        raise Unavailable(f"{host.authority}: redirects more than {request.redirects} times")

    async def _tls(self, host: RegistryHost, target: URL, proxy: str | None) -> ssl.SSLContext | bool:
        """Return the context where there is TLS: to read all authorities takes as long as a small image."""
        if target.scheme == "http" and not (proxy or "").startswith("https:"):
            return True
        return await self._contexts.get(host.tls)


def _place(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port


def _readable(answer: Answer) -> Answer:
    """Refuse a body in an encoding: we ask for none, and a small one could become a large one."""
    encoding = answer.response.headers.get("Content-Encoding", "").lower()
    if answer.response.ok and encoding not in {"", "identity"}:
        answer.response.release()
        raise DataLoss(f"{answer.origin}: sends an encoded body, which nobody asked for")
    return answer


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
        raise DataLoss(f"{host.authority}: redirects to what is no address")
    if target.scheme == "http" and not host.allows_plain:
        raise Unavailable(f"{host.authority}: redirects from https to http, which is not followed")
    return target


def _stranger(host: RegistryHost, target: URL) -> RegistryHost:
    """Return how to speak to a host that another one named: as to that one, but being nobody."""
    return replace(host, authority=target.raw_authority, tls=replace(host.tls, client=()), headers=())


def _speaks_no_tls(error: Exception) -> bool:
    return isinstance(error, aiohttp.ClientConnectorSSLError) or (
        isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionResetError)
    )
