"""An image archive in place of a registry. It is as untrusted as a registry."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from noderuntime.core.blocking import on_files
from noderuntime.core.errors import DataLoss, ResourceExhausted
from noderuntime.images.archive.members import Files, Piece
from noderuntime.images.credentials import Credentials
from noderuntime.images.reference import Reference
from noderuntime.images.registry.verify import check_type
from noderuntime.images.remote import Descriptor, Sink

DOCUMENT_LIMIT = 8 << 20
_BLOCK = 1 << 20


class ArchiveRemote:
    """:class:`noderuntime.images.remote.Remote` for one image of an archive."""

    def __init__(self, files: Files, target: Descriptor, members: Mapping[str, str]) -> None:
        """Serve blobs by digest, from their paths in an OCI layout or from those in ``members``."""
        self._files = files
        self._target = target
        self._members = members

    async def resolve(self, reference: Reference, credentials: Credentials | None = None) -> Descriptor:
        """Return the descriptor of the image, whatever the reference."""
        return self._target

    async def manifest(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        """Return a manifest or index."""
        raw = descriptor.data or await self.document(reference, descriptor)
        check_type(raw, descriptor.media_type, "the archive")
        return raw

    async def document(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        """Return a small blob. DataLoss if it does not match its digest."""
        raw = await on_files("read an archive", lambda: read_whole(self._find(descriptor)))
        _check_digest(descriptor, hashlib.sha256(raw).hexdigest())
        return raw

    async def blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        sink: Sink,
        credentials: Credentials | None = None,
    ) -> None:
        """Copy a layer into a sink. DataLoss if it does not match its digest or size."""
        state = await sink.hasher()
        piece = await on_files("open an archive", lambda: self._find(descriptor))

        def block() -> bytes:
            data = piece.read(sink.offset, _BLOCK)
            state.update(data)
            return data

        while sink.offset < descriptor.size:
            data = await on_files("read an archive", block)
            if not data:
                raise DataLoss(f"the archive ended within {descriptor.digest}")
            await sink.write(data)
        _check_digest(descriptor, state.hexdigest())

    async def close(self) -> None:
        """Do nothing: the caller of :func:`noderuntime.images.archive.reader.opened` closes the files."""

    def _find(self, descriptor: Descriptor) -> Piece:
        name = self._members.get(descriptor.digest) or member_of(descriptor.digest)
        piece = self._files.find(name)
        if piece.size != descriptor.size:
            raise DataLoss(
                f"the archive's {descriptor.digest} has {piece.size} bytes, expected {descriptor.size}"
            )
        return piece


def member_of(digest: str) -> str:
    """Return the path of a blob in an OCI layout (OCI image spec, image-layout.md)."""
    return f"blobs/{digest.replace(':', '/')}"


def read_whole(piece: Piece) -> bytes:
    """Return a file's content. ResourceExhausted if it has more than 8 MiB. Blocks."""
    if piece.size > DOCUMENT_LIMIT:
        raise ResourceExhausted(
            f"a document of the archive has {piece.size} bytes, the limit is {DOCUMENT_LIMIT}"
        )
    return piece.read(0, piece.size)


def _check_digest(descriptor: Descriptor, found: str) -> None:
    if descriptor.digest != f"sha256:{found}":
        raise DataLoss(f"the archive's {descriptor.digest} has the digest sha256:{found}")
