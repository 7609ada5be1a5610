"""Sets the attributes of a layer's implied directories to those of the layers below.

An archive can contain ``srv/www/index.html`` without an entry for ``srv/www``. Unpacking creates
``srv/www`` with default attributes, and overlayfs shows the attributes of the uppermost layer. The correct
attributes are those of the layers below: of the first ``srv/www``, top down, that no whiteout or opaque
directory hides.

Layers are untrusted, so each step opens one name in an open directory and follows no symlink.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from noderuntime.core.errors import ResourceExhausted

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_LOOKUPS = 2_000_000
"""Limit on directories times parents, which takes about a second. Legitimate layers need a few thousand."""


def inherit_attributes(layer: Path, implied: Collection[str], parents: Sequence[Path]) -> None:
    """Copy the attributes of the implied directories from the parents, nearest first. Blocks.

    ResourceExhausted if too many lookups are needed.
    """
    if len(implied) * len(parents) > _LOOKUPS:
        raise ResourceExhausted(f"the layer has too many directories without an entry: {len(implied)}")
    for path in implied if parents else ():
        parts = [os.fsencode(part) for part in path.split("/") if part]
        own, hides = _descend(layer, parts)
        if own is not None:
            try:
                if not hides:
                    _inherit(own, parts, parents)
            finally:
                os.close(own)


def _inherit(own: int, parts: Sequence[bytes], parents: Sequence[Path]) -> None:
    """Copy the attributes of the directory that overlayfs would show in a stack of the parents alone."""
    for parent in parents:
        found, hides = _descend(parent, parts)
        if found is not None:
            try:
                _copy(found, own)
            finally:
                os.close(found)
        if found is not None or hides:
            return


def _descend(root: Path, parts: Sequence[bytes]) -> tuple[int | None, bool]:
    """Open a directory of one layer, and return whether the layer hides the directory of lower layers."""
    fd = os.open(root, _DIRECTORY)
    hides = False
    for part in parts:
        try:
            hides = hides or _is_opaque(fd)
            inner = os.open(part, _DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            return None, hides
        except NotADirectoryError:
            return None, True  # a whiteout, a file or a symlink
        finally:
            os.close(fd)
        fd = inner
    return fd, hides


def _is_opaque(fd: int) -> bool:
    with suppress(OSError):
        return os.getxattr(fd, _OPAQUE) == b"y"
    return False


def _copy(source: int, target: int) -> None:
    """Copy owner, extended attributes, mode and time, in this order: each can reset a later one."""
    status = os.fstat(source)
    os.chown(target, status.st_uid, status.st_gid)
    for name in os.listxattr(source):
        if not name.startswith(_OVERLAY):
            os.setxattr(target, name, os.getxattr(source, name))
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
