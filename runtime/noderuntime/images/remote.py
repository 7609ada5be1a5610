"""What a pull asks of a registry, and what it gives: the seam between transport and store.

    resolve(reference) ──► Descriptor ──► manifest ──► document (config)
                                              └──────► blob (layers) ──► Sink

Everything that :class:`Remote` returns or has written to a sink completely has
the size and the digest that its descriptor promises. What a broken ``blob``
wrote is a prefix of the blob unless the error is DataLoss: then it is garbage
and must go. All errors are one line and carry no credential:

* InvalidArgument    the registry's documents or the node's settings make no sense
* NotFound           no such image or blob there
* PermissionDenied   the registry wants credentials, or does not accept these
* Unavailable        it is away, broke off, or is too slow; the same call may work later
* ResourceExhausted  it limits how often we may ask, or a document is beyond our limits
* DataLoss           it sent something else than it promised

Nothing here imports the HTTP client; only :mod:`noderuntime.images.registry.client`
does, which the composition root imports where images are pulled by us.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from noderuntime.images.credentials import Credentials
from noderuntime.images.reference import Reference


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob or manifest is promised to be (OCI image spec, descriptor.md)."""

    media_type: str
    digest: str
    """``sha256:`` and 64 hexadecimal digits."""
    size: int
    """Bytes."""
    data: bytes | None = None
    """The content, where it came along with the promise; its digest is verified."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a registry may take, and how often it may fail."""

    answer_seconds: float = 30.0
    """From the request to the headers of its answer, redirects included, beside the time to connect."""
    idle_seconds: float = 30.0
    """Without one byte of a body."""
    least_bytes_per_second: int = 4096
    """Over every window of waiting for a body; time that the sink takes does not count."""
    window_seconds: float = 60.0
    attempts: int = 5
    """At one host without progress in between."""
    longest_wait_seconds: float = 60.0
    """What it may ask for with Retry-After."""
    longest_pause_seconds: float = 4.0
    """Between attempts when it asks for nothing."""


PATIENCE = Patience()


class Hash(Protocol):
    """The part of a :mod:`hashlib` object that verification needs."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """Return the digest of everything so far."""


class Sink(Protocol):
    """Where a blob goes, in order and without gaps."""

    @property
    def offset(self) -> int:
        """How many bytes of the blob it holds: more than none when an earlier pull was cut off."""

    async def hasher(self) -> Hash:
        """Return the SHA-256 state over the bytes that it holds; asked once, before the first write.

        The transfer keeps and updates it, in another thread while :meth:`write` has the same bytes.
        """

    async def write(self, data: bytes) -> None:
        """Append; returns when the sink can take more. ``data`` is at most 1 MiB, and may be a few bytes."""


class Remote(Protocol):
    """A registry and its mirrors. ``credentials`` are those of the call, for ``reference.registry`` only."""

    async def resolve(self, reference: Reference, credentials: Credentials | None = None) -> Descriptor:
        """Find the manifest or index that a tag or digest stands for now."""

    async def manifest(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        """Fetch a manifest or index; its media type is what the descriptor says, in header and body."""

    async def document(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        """Fetch a small blob (a config) into memory; ResourceExhausted when it is not small."""

    async def blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        sink: Sink,
        credentials: Credentials | None = None,
    ) -> None:
        """Stream a blob into a sink, from the sink's offset on, resuming after breaks."""

    async def close(self) -> None:
        """Let go of connections."""
