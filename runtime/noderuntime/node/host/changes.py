"""Writes the changes of a container as a layer (OCI image spec, Image Layer Filesystem Changeset). Blocks.

The container can run meanwhile and is not trusted. All accesses are relative to an open directory and do not
follow symlinks, so a file that is replaced between two calls cannot redirect them.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from noderuntime.node.host.base import UserNamespace

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_OPAQUE_XATTR = "trusted.overlay.opaque"
_KINDS = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def upper_directory(rootfs: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """Return the upper directory of the overlay that is mounted at a path, or None if there is none."""
    for line in reversed(mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()):
        fields = line.split(" ")
        if fields[4] == str(rootfs):
            options = dict(word.partition("=")[::2] for word in fields[-1].split(","))
            return Path(options["upperdir"]) if "upperdir" in options else None
    return None


def write_changes(upper: Path, target: Path, user: UserNamespace | None) -> None:
    """Write an overlay's upper directory as a layer, with IDs as seen in the user namespace."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for top, names, others, fd in os.fwalk(upper, follow_symlinks=False):
            directory = os.path.relpath(top, upper)
            if directory != "." and _is_opaque(fd):
                archive.addfile(tarfile.TarInfo(f"{directory}/{_OPAQUE}"))
            for name in sorted((*names, *others)):
                for entry, content in _entries(fd, name, os.path.normpath(f"{directory}/{name}")):
                    _map(entry, user)
                    if content is None:
                        archive.addfile(entry)
                    else:
                        with open(content, "rb") as file:
                            archive.addfile(entry, _Padded(file, entry.size))


class _Padded:
    """A file of a fixed size: padded with zeros if it is truncated meanwhile."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, or all if it is negative."""
        wanted = self._left if size < 0 else min(size, self._left)
        self._left -= wanted
        return self._file.read(wanted).ljust(wanted, b"\0")


def _entries(directory: int, name: str, path: str) -> Iterator[tuple[tarfile.TarInfo, int | None]]:
    """Yield an entry, and the descriptor of its content if it is a file. Skips a file that was removed."""
    with suppress(OSError):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode))
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            parent, _, last = path.rpartition("/")
            yield tarfile.TarInfo(f"{parent}/{_WHITEOUT}{last}".lstrip("/")), None
        elif kind == tarfile.REGTYPE:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=directory)
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode):
                yield _entry(path, found, kind), fd
            else:
                os.close(fd)
        elif kind is not None:
            entry = _entry(path, found, kind)
            if kind == tarfile.SYMTYPE:
                entry.linkname = os.readlink(name, dir_fd=directory)
            yield entry, None


def _entry(path: str, found: os.stat_result, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type = kind
    entry.mode, entry.mtime = stat.S_IMODE(found.st_mode), found.st_mtime
    entry.uid, entry.gid = found.st_uid, found.st_gid
    if kind == tarfile.REGTYPE:
        entry.size = found.st_size
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        entry.devmajor, entry.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    return entry


def _map(entry: tarfile.TarInfo, user: UserNamespace | None) -> None:
    if user is not None:
        entry.uid = max(entry.uid - user.uids.outside, 0)
        entry.gid = max(entry.gid - user.gids.outside, 0)


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE_XATTR) == b"y"
    except OSError:
        return False
