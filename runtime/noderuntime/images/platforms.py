"""Selects the manifest for this machine from an index, which can contain other indexes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from noderuntime.core.errors import InvalidArgument, NotFound
from noderuntime.images import oci

_NESTING_LIMIT = 3
"""Levels of nested indexes."""
_DOCUMENTS_LIMIT = 16
"""Limit on fetched documents: an index can list thousands that do not exist."""


async def manifest_in(
    index: bytes, fetch: Callable[[oci.Descriptor], Awaitable[bytes]], machine: str | None = None
) -> tuple[oci.Descriptor, bytes]:
    """Return the best existing manifest for a machine. ``fetch`` raises NotFound for a missing one.

    NotFound if there is no manifest, InvalidArgument if an index is invalid or nested too deeply.
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
            raise InvalidArgument(f"image index: more than {_NESTING_LIMIT} levels of nested indexes")
        inner = oci.by_preference(oci.read(oci.Index, raw), machine)
        waiting += [(depth + 1, entry) for entry in reversed(inner)]
    raise NotFound("the image has no manifest for this machine's platform")
