"""Converts whiteouts of the OCI image spec (layer.md) to those of overlayfs.

=================  ============================  ===============================================
name in the layer  meaning                       on overlayfs
=================  ============================  ===============================================
``.wh.NAME``       hides NAME of lower layers    character device 0/0 with that name; if the
                                                 layer has a directory NAME, it becomes opaque
``.wh..wh..opq``   hides the directory's         ``trusted.overlay.opaque`` on the directory; for
                   contents of lower layers      the root, lower layers are omitted at mount
``.wh..wh.…``      AUFS metadata                 ignored
=================  ============================  ===============================================

A whiteout never hides an entry of its own layer, in whichever order they come.
"""

from __future__ import annotations

import os
import stat

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.layers.tar.entry import quoted
from noderuntime.node.layers.tree import Tree

PREFIX = b".wh."
OPAQUE_XATTR = b"trusted.overlay.opaque"
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"


def apply(tree: Tree, parts: list[bytes]) -> bool:
    """Apply an entry that is a whiteout and return True, or return False for other entries.

    InvalidArgument for a whiteout of an invalid name.
    """
    if any(part.startswith(_META) and part != _OPAQUE for part in parts):
        return True
    *directory, name = parts
    if not name.startswith(PREFIX):
        return False
    fd = tree.enter(directory)
    if name == _OPAQUE:
        tree.opaque.add(tree.current)
    else:
        _hide(tree, fd, name[len(PREFIX) :])
    return True


def _hide(tree: Tree, fd: int, name: bytes) -> None:
    path = tree.path(name)
    if name in (b"", b".", b".."):
        raise InvalidArgument(f"the layer has a whiteout of the invalid name {quoted(path)}")
    if path in tree.directories:
        tree.opaque.add(path)
        return
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
    except FileExistsError:
        return  # a new file of this layer hides the lower one anyway
