"""The interface between transport and store: the calls of a pull to a registry.

    resolve(reference) ──► Descriptor ──► manifest ──► document (config)
                                              └──────► blob (layers) ──► Sink

Content that :class:`Remote` returns or has written to a sink completely has the size and the digest of
its descriptor. After a failed ``blob`` the sink holds a prefix of the blob, unless the error is DataLoss:
then it holds corrupt content, which must be removed. All errors are one line and contain no credentials:

* InvalidArgument    the registry's documents or the node's settings are invalid
* NotFound           the registry has no such image or blob
* PermissionDenied   the registry requires credentials, or does not accept these
* Unavailable        the registry is down, closed the connection, or is too slow; a retry can succeed
* ResourceExhausted  the registry limits the rate of requests, or a document exceeds our limits
* DataLoss           the registry sent other content than its descriptor says

This module does not import the HTTP client. :mod:`noderuntime.images.registry.client` does, which the
composition root imports only if the daemon pulls images itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from noderuntime.images.credentials import Credentials
from noderuntime.images.reference import Reference


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The type, digest and size of a blob or manifest (OCI image spec, descriptor.md)."""

    media_type: str
    digest: str
    """``sha256:`` and 64 hexadecimal digits."""
    size: int
    """Bytes."""
    data: bytes | None = None
    """The content, if it was sent with the descriptor; its digest is verified."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Timeouts and retry limits for a registry."""

    response_seconds: float = 30.0
    """From the request to the headers of its response, redirects included, after the time to connect."""
    idle_seconds: float = 30.0
    """Without one byte of a body."""
    least_bytes_per_second: int = 4096
    """Over every window of waiting for a body; time spent in the sink is not counted."""
    window_seconds: float = 60.0
    attempts: int = 5
    """At one host without progress in between."""
    longest_wait_seconds: float = 60.0
    """Limit on Retry-After."""
    longest_pause_seconds: float = 4.0
    """Between attempts without Retry-After."""


DEFAULT_POLICY = RetryPolicy()


class Hash(Protocol):
    """The part of a :mod:`hashlib` object that verification needs."""

    def update(self, data: bytes, /) -> None:
        """Hash more bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far."""


class Sink(Protocol):
    """The destination of a blob, written in order and without gaps."""

    @property
    def offset(self) -> int:
        """Bytes of the blob that it holds; more than 0 if an earlier pull was interrupted."""

    async def hasher(self) -> Hash:
        """Return the SHA-256 state of the bytes that it holds. Called once, before the first write.

        The transfer keeps and updates it, in another thread while :meth:`write` has the same bytes.
        """

    async def write(self, data: bytes) -> None:
        """Append ``data``, which is at most 1 MiB. Returns when the sink can accept more."""


class Remote(Protocol):
    """A registry and its mirrors. ``credentials`` are those of the call, for ``reference.registry`` only."""

    async def resolve(self, reference: Reference, credentials: Credentials | None = None) -> Descriptor:
        """Return the descriptor of the manifest or index of a tag or digest."""

    async def manifest(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        """Fetch a manifest or index. Its media type in header and body is that of the descriptor."""

    async def document(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        """Fetch a small blob (a config) into memory. ResourceExhausted if it is too large."""

    async def blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        sink: Sink,
        credentials: Credentials | None = None,
    ) -> None:
        """Stream a blob into a sink, from the sink's offset on. Broken connections are resumed."""

    async def close(self) -> None:
        """Close connections."""
