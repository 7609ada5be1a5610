"""Which of an index's manifests is for this machine: the way there, through indexes in indexes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from noderuntime.core.errors import InvalidArgument, NotFound
from noderuntime.images import oci

_NESTING_LIMIT = 3
"""Indexes in one another."""
_DOCUMENTS_LIMIT = 16
"""That are asked for before we give up: an index can name thousands that do not exist."""


async def manifest_in(
    index: bytes, fetch: Callable[[oci.Descriptor], Awaitable[bytes]], machine: str | None = None
) -> tuple[oci.Descriptor, bytes]:
    """Return the best manifest for a machine that is there; ``fetch`` says NotFound for what is not.

    NotFound when there is none, InvalidArgument when the index makes no sense or is nested too deep.
    """
    waiting = [(1, entry) for entry in reversed(oci.by_preference(oci.read(oci.Index, index), machine))]
    for _ in range(_DOCUMENTS_LIMIT):
        if not waiting:
            break
        depth, entry = waiting.pop()
        try:
            raw = await fetch(entry)
        except NotFound:
            continue
        if entry.media_type in oci.MANIFEST_TYPES:
            return entry, raw
        if depth == _NESTING_LIMIT:
            raise InvalidArgument(f"image index: more than {_NESTING_LIMIT} indexes in one another")
        inner = oci.by_preference(oci.read(oci.Index, raw), machine)
        waiting += [(depth + 1, entry) for entry in reversed(inner)]
    raise NotFound("there is nothing for this machine's platform")
