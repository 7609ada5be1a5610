"""A complete pull into memory."""

from __future__ import annotations

from noderuntime.images.credentials import Credentials
from noderuntime.images.reference import Reference
from noderuntime.images.remote import Remote
from registries.content import digest, parts
from registries.sink import MemorySink


async def pull(
    registry: Remote, reference: Reference, credentials: Credentials | None = None
) -> dict[str, bytes]:
    """Pull all content of a name and verify it independently."""
    pulled: dict[str, bytes] = {}
    waiting = [await registry.resolve(reference, credentials)]
    while waiting:
        descriptor = waiting.pop()
        if "manifest" in descriptor.media_type or "index" in descriptor.media_type:
            raw = await registry.manifest(reference, descriptor, credentials)
            waiting += parts(raw)
        elif "config" in descriptor.media_type or "container.image" in descriptor.media_type:
            raw = await registry.document(reference, descriptor, credentials)
        else:
            sink = MemorySink()
            await registry.blob(reference, descriptor, sink, credentials)
            raw = bytes(sink.content)
        assert digest(raw) == descriptor.digest
        assert len(raw) == descriptor.size
        pulled[descriptor.digest] = raw
    return pulled
