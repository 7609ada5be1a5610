"""Directories that a layer needs and does not describe: they look as they do in the layers below.

An archive may hold ``srv/www/index.html`` and no entry for ``srv/www``. In the directory that it
was unpacked to, ``srv/www`` had to be made, and overlayfs will show that one's mode, owner,
extended attributes and time. What it should show is what the layers below show: the first
``srv/www`` from above that no whiteout and no opaque directory hides.

Layers were written by strangers, so every step goes from an open directory to one name in it,
and no link is followed.
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
"""Directories times layers below: honest layers need some thousand, and a second is enough for these."""


def adopt_looks(layer: Path, implied: Collection[str], parents: Sequence[Path]) -> None:
    """Give the implied directories the looks that they have in the parents, nearest first. Blocks.

    ResourceExhausted when there is too much to look up.
    """
    if len(implied) * len(parents) > _LOOKUPS:
        raise ResourceExhausted(f"the layer has {len(implied)} directories that it does not describe")
    for path in implied if parents else ():
        parts = [os.fsencode(part) for part in path.split("/") if part]
        own, hides = _descend(layer, parts)
        if own is not None:
            try:
                if not hides:
                    _adopt(own, parts, parents)
            finally:
                os.close(own)


def _adopt(own: int, parts: Sequence[bytes], parents: Sequence[Path]) -> None:
    """Find what overlayfs would take for the directory, were the parents all there is, and copy its looks."""
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
    """Open a directory of one layer, and tell whether the layer hides those of the layers below it."""
    fd = os.open(root, _DIRECTORY)
    hides = False
    for part in parts:
        try:
            hides = hides or _is_opaque(fd)
            inner = os.open(part, _DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            return None, hides
        except NotADirectoryError:
            return None, True  # a whiteout, a file or a link has the name
        finally:
            os.close(fd)
        fd = inner
    return fd, hides


def _is_opaque(fd: int) -> bool:
    with suppress(OSError):
        return os.getxattr(fd, _OPAQUE) == b"y"
    return False


def _copy(source: int, target: int) -> None:
    """Owner first, attributes next, mode and time last: each would undo a later one."""
    looks = os.fstat(source)
    os.chown(target, looks.st_uid, looks.st_gid)
    for name in os.listxattr(source):
        if not name.startswith(_OVERLAY):
            os.setxattr(target, name, os.getxattr(source, name))
    os.chmod(target, stat.S_IMODE(looks.st_mode))
    os.utime(target, ns=(looks.st_mtime_ns, looks.st_mtime_ns))
