"""Removed files: what layers say (OCI image spec, layer.md), as overlayfs wants it.

=================  ===========================  ==============================================
in the layer       means                        becomes
=================  ===========================  ==============================================
``.wh.NAME``       NAME of lower layers is gone  character device 0/0 of that name; if the layer
                                                 has a new directory NAME, that one is opaque
``.wh..wh..opq``   so is all in this directory   ``trusted.overlay.opaque`` on the directory; in the
                                                 root it is for the mount to leave lower layers out
``.wh..wh.…``      AUFS kept its books there     nothing
=================  ===========================  ==============================================

A whiteout never hides what its own layer brings, whichever comes first.
"""

from __future__ import annotations

import os
import stat

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.layers.tar.entry import shown
from noderuntime.node.layers.tree import Tree

PREFIX = b".wh."
OPAQUE_XATTR = b"trusted.overlay.opaque"
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"


def apply(tree: Tree, parts: list[bytes]) -> bool:
    """Carry out what an entry's name says about lower layers; False if it only names something.

    InvalidArgument for a whiteout that hides nothing that could be.
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
        raise InvalidArgument(f"the layer hides {shown(path)}, which is no name")
    if path in tree.directories:
        tree.opaque.add(path)
        return
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
    except FileExistsError:
        return  # the layer brings a new file, which hides the old one
