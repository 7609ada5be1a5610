"""The registry client (OCI distribution spec v1.1, pulls only).

A call tries the hosts of :mod:`noderuntime.images.registry.mirrors` until one succeeds. Tags are resolved
only by hosts with the capability; everything else is addressed by digest, so any host can serve it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote

from noderuntime.core.errors import DataLoss, InvalidArgument, ResourceExhausted
from noderuntime.images.credentials import Credentials, CredentialsFile
from noderuntime.images.reference import Reference, same_registry
from noderuntime.images.registry.auth import Authorizer
from noderuntime.images.registry.endpoints import RegistryHost
from noderuntime.images.registry.hosts import Hosts
from noderuntime.images.registry.http_client import Request, Web
from noderuntime.images.registry.mirrors import Mirrors
from noderuntime.images.registry.responses import Response, Unsupported, read_small, status_error
from noderuntime.images.registry.retry import retrying
from noderuntime.images.registry.transfer import Open, SinkFailed, Transfer
from noderuntime.images.registry.verify import (
    ACCEPTED,
    check_header,
    check_type,
    descriptor_from_body,
    descriptor_from_headers,
)
from noderuntime.images.remote import DEFAULT_POLICY, Descriptor, Hash, RetryPolicy, Sink

MANIFEST_LIMIT = 4 << 20
"""Bytes; the minimum that the distribution spec recommends registries to accept."""
DOCUMENT_LIMIT = 8 << 20
"""Bytes of an image's config."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Registry:
    """:class:`noderuntime.images.remote.Remote` over HTTP. Create it inside the event loop."""

    def __init__(
        self,
        hosts: Hosts,
        credentials: CredentialsFile | None = None,
        policy: RetryPolicy = DEFAULT_POLICY,
    ) -> None:
        self._mirrors = Mirrors(hosts)
        self._credentials = credentials
        self._policy = policy
        self.http_redirects = True
        """Whether hosts with TLS can redirect to plain HTTP for content whose digest is known."""
        self._web = Web(policy)
        self._authorizer = Authorizer(self._web, hosts, policy)

    async def resolve(self, reference: Reference, credentials: Credentials | None = None) -> Descriptor:
        """Return the manifest or index of a tag or digest (distribution spec, HEAD and GET of a manifest).

        A digest in the reference takes precedence over its tag, and can be resolved by any host.
        """
        if reference.digest and not _DIGEST.fullmatch(reference.digest):
            raise InvalidArgument(f"{reference}: only sha256 digests can be verified")

        async def ask(host: RegistryHost) -> Descriptor:
            return await retrying(self._policy)(self._resolve_at, host, reference, credentials)

        return await self._mirrors.first(reference, "pull" if reference.digest else "resolve", ask)

    async def manifest(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        """Fetch a manifest or index by its digest. ResourceExhausted if it has more than 4 MiB."""
        path, media_type = f"manifests/{descriptor.digest}", descriptor.media_type
        raw = await self._small(
            reference, descriptor, credentials, path, limit=MANIFEST_LIMIT, media_type=media_type
        )
        check_type(raw, media_type, f"image {reference}")
        return raw

    async def document(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        """Fetch a config. ResourceExhausted if it has more than 8 MiB."""
        path = f"blobs/{descriptor.digest}"
        return await self._small(reference, descriptor, credentials, path, limit=DOCUMENT_LIMIT)

    async def blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        sink: Sink,
        credentials: Credentials | None = None,
    ) -> None:
        """Stream a blob into a sink, from the sink's offset on. Errors of the sink are raised unchanged."""
        transfer = Transfer(descriptor, sink, self._policy)

        async def ask(host: RegistryHost) -> None:
            await transfer.fetch(self._opener(host, reference, f"blobs/{descriptor.digest}", credentials))

        try:
            await self._mirrors.first(reference, "pull", ask, is_corrupt=lambda: bool(transfer.sources))
        except SinkFailed as failed:
            raise failed.cause from failed.cause.__cause__

    async def close(self) -> None:
        """Close all connections."""
        await self._web.close()

    async def _small(
        self,
        reference: Reference,
        descriptor: Descriptor,
        credentials: Credentials | None,
        path: str,
        *,
        limit: int,
        media_type: str = "",
    ) -> bytes:
        """Fetch a blob or manifest into memory. After corrupt content the next host is tried."""
        if descriptor.size > limit:
            raise ResourceExhausted(
                f"image {reference}: {path} has {descriptor.size} bytes, the limit is {limit}"
            )
        if descriptor.data is not None and _is(descriptor.data, descriptor):
            return descriptor.data

        async def ask(host: RegistryHost) -> bytes:
            memory = _Memory()
            opener = self._opener(host, reference, path, credentials, media_type)
            await Transfer(descriptor, memory, self._policy).fetch(opener)
            return bytes(memory.content)

        return await self._mirrors.first(reference, "pull", ask)

    def _opener(
        self,
        host: RegistryHost,
        reference: Reference,
        path: str,
        credentials: Credentials | None,
        media_type: str = "",
    ) -> Open:
        """Return the function that requests a blob from a host. ``media_type`` is empty for blobs."""

        @asynccontextmanager
        async def open_(start: int) -> AsyncIterator[Response]:
            headers = {"Accept": media_type or "*/*"} | ({"Range": f"bytes={start}-"} if start else {})
            async with self._ask(
                host, reference, path, credentials, headers=headers, http_redirects=self.http_redirects
            ) as response:
                check_header(response, media_type)
                yield response

        return open_

    async def _resolve_at(
        self, host: RegistryHost, reference: Reference, credentials: Credentials | None
    ) -> Descriptor:
        path = f"manifests/{reference.digest or reference.tag}"
        headers = {"Accept": ", ".join(ACCEPTED)}
        found = None
        with suppress(Unsupported):  # some registries have no HEAD
            async with self._ask(
                host, reference, path, credentials, method="HEAD", headers=headers
            ) as response:
                found = descriptor_from_headers(response)
        if found is None:
            async with self._ask(host, reference, path, credentials, headers=headers) as response:
                raw = await read_small(response, MANIFEST_LIMIT, self._policy.window_seconds)
                found = descriptor_from_body(raw, response)
        if reference.digest and found.digest != reference.digest:
            raise DataLoss(f"{host.authority}: sent another digest than requested")
        return found

    @asynccontextmanager
    async def _ask(
        self,
        host: RegistryHost,
        reference: Reference,
        path: str,
        credentials: Credentials | None,
        *,
        headers: Mapping[str, str],
        method: str = "GET",
        http_redirects: bool = False,
    ) -> AsyncIterator[Response]:
        """Yield a successful response. One 401 of the host itself is answered with new credentials."""
        credentials = await self._credentials_for(host, reference, credentials)
        repository = reference.repository
        url = _url(host, reference, path)
        for last in (False, True):
            header = await self._authorizer.header(host, repository, credentials)
            private = {"Authorization": header} if header else {}
            request = Request(url, method, headers, private, http_redirects=http_redirects)
            async with self._web.ask(host, request) as response:
                if response.http.status in {200, 206}:
                    yield response
                    return
                if response.http.status != 401 or response.redirected or last:
                    raise await status_error(response)
                challenges = response.http.headers.getall("WWW-Authenticate", [])
            await self._authorizer.renew(host, repository, credentials, header, challenges)

    async def _credentials_for(
        self, host: RegistryHost, reference: Reference, credentials: Credentials | None
    ) -> Credentials | None:
        """Return the credentials for a host. Those of a pull are for the registry, never for a mirror."""
        if host.is_registry and credentials:
            return credentials
        if self._credentials is None:
            return None
        registry = reference.registry if host.is_registry else host.authority
        return await self._credentials.find(registry, reference.repository)


class _Memory:
    """A sink in memory."""

    def __init__(self) -> None:
        self.content = bytearray()

    @property
    def offset(self) -> int:
        return len(self.content)

    async def hasher(self) -> Hash:
        return hashlib.sha256(self.content)

    async def write(self, data: bytes) -> None:
        self.content += data


def _url(host: RegistryHost, reference: Reference, path: str) -> str:
    """Return the URL. A mirror gets the registry's name as ``ns``, as from containerd."""
    url = f"{host.scheme}://{host.authority}{host.path}/{reference.repository}/{path}"
    if same_registry(host.authority, reference.registry):
        return url
    return f"{url}?ns={quote(reference.registry, safe='')}"


def _is(content: bytes, descriptor: Descriptor) -> bool:
    return (
        len(content) == descriptor.size
        and f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor.digest
    )
