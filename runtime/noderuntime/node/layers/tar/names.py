"""Splits and validates names of an archive."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.layers.tar.entry import quoted
from noderuntime.node.layers.tar.limits import Limits

_COMPONENT = 255


def split(name: bytes, limits: Limits) -> list[bytes]:
    """Return the components of a name, relative to the layer's root; an empty list for the root.

    ``.``, repeated slashes and a leading slash are ignored, as in all runtimes. InvalidArgument
    for ``..``, which legitimate archives do not contain, and for a name that is too long.
    """
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise InvalidArgument(f"the name {quoted(name)} leads out of the layer")
    if len(name) > limits.path or (len(name) > _COMPONENT and max(map(len, parts)) > _COMPONENT):
        raise InvalidArgument(f"the name {quoted(name)} is too long")
    return parts
