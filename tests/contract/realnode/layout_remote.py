"""An OCI layout in place of a registry."""

from __future__ import annotations

from noderuntime.core.errors import NotFound
from noderuntime.images.credentials import Credentials
from noderuntime.images.reference import Reference
from noderuntime.images.remote import Descriptor, Sink
from realnode.layout import Layout

_PIECE = 64 << 10


class LayoutRemote:
    """See noderuntime.images.remote.Remote. Serves the last image added under a name."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._named: dict[str, Descriptor] = {}

    def add(self, layout: Layout) -> list[str]:
        """Serve the images of another layout too, and return their names."""
        self._blobs |= layout.blobs
        named = {
            name: Descriptor(one["mediaType"], one["digest"], one["size"]) for name, one in layout.named()
        }
        self._named |= named
        return list(named)

    async def resolve(self, reference: Reference, credentials: Credentials | None = None) -> Descriptor:
        found = self._named.get(reference.stored)
        if found is None:
            raise NotFound(f"no {reference}")
        return found

    async def manifest(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        return self._blob(descriptor)

    async def document(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials | None = None
    ) -> bytes:
        return self._blob(descriptor)

    async def blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        sink: Sink,
        credentials: Credentials | None = None,
    ) -> None:
        state, content = await sink.hasher(), self._blob(descriptor)
        while piece := content[sink.offset : sink.offset + _PIECE]:
            state.update(piece)
            await sink.write(piece)
        assert descriptor.digest == f"sha256:{state.hexdigest()}"

    async def close(self) -> None:
        return None

    def _blob(self, descriptor: Descriptor) -> bytes:
        if descriptor.digest not in self._blobs:
            raise NotFound(f"no {descriptor.digest}")
        return self._blobs[descriptor.digest]
