"""Names of an archive, split into the parts that system calls get one by one."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.layers.tar.entry import shown
from noderuntime.node.layers.tar.limits import Limits

_COMPONENT = 255


def split(name: bytes, limits: Limits) -> list[bytes]:
    """Return the parts of a name below the layer's root; none for the root itself.

    ``.`` and slashes too many mean nothing, a leading slash is the layer's root, as in all
    runtimes. ``..`` is InvalidArgument: no honest archive has it.
    """
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise InvalidArgument(f"the name {shown(name)} would lead out of the layer")
    if len(name) > limits.path or (len(name) > _COMPONENT and max(map(len, parts)) > _COMPONENT):
        raise InvalidArgument(f"the name {shown(name)} is too long")
    return parts
