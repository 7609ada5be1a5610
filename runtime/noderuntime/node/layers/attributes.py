"""Sets owner, extended attributes, mode and modification time of unpacked files.

The order matters: a change of the owner drops file capabilities and set-ID bits, so extended
attributes and the mode are set after it, and the time last.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from noderuntime.node.layers.tar import entry as kinds
from noderuntime.node.layers.tar.entry import Entry
from noderuntime.node.layers.tree import DirectoryAttributes

PERMISSIONS = 0o777
"""Mode bits that are set when a file is created. Special bits are set after the owner."""

_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_CAPABILITIES = b"security.capability"
_RESERVED = (b"trusted.", b"user.overlay.")
"""Ignored in archives, because overlayfs and tools on the node trust them. containerd ignores them too."""


class AttributeWriter:
    """Sets attributes of files that this process created and owns."""

    def __init__(self) -> None:
        self._owner = (os.geteuid(), os.getegid())

    def set_on_file(self, fd: int, entry: Entry) -> None:
        """Set the attributes of an open file that was created with the entry's permissions."""
        if (entry.uid, entry.gid) != self._owner:
            os.chown(fd, entry.uid, entry.gid)
        if entry.xattrs:
            _set_xattrs(fd, entry.xattrs)
        if entry.xattrs or entry.mode & _SPECIAL_BITS:
            os.chmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def set_on_directory(self, fd: int, attributes: DirectoryAttributes) -> None:
        """Set the attributes of an open directory. Call it after the directory's contents are complete."""
        if (attributes.uid, attributes.gid) != self._owner:
            os.chown(fd, attributes.uid, attributes.gid)
        if attributes.xattrs:
            _set_xattrs(fd, attributes.xattrs)
        os.chmod(fd, attributes.mode)
        os.utime(fd, ns=(attributes.mtime, attributes.mtime))

    def set_on_name(self, parent: int, name: bytes, entry: Entry) -> None:
        """Set the attributes of a file by name, since it cannot be opened. Only this process writes here."""
        if (entry.uid, entry.gid) != self._owner:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            _set_xattrs(b"/proc/self/fd/%d/%b" % (parent, name), entry.xattrs)
        if entry.kind != kinds.SYMLINK and (entry.xattrs or entry.mode & _SPECIAL_BITS):
            os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)


def _set_xattrs(file: int | bytes, xattrs: Mapping[bytes, bytes]) -> None:
    """Set extended attributes. Unsupported ones are skipped, except for capabilities."""
    for name, value in xattrs.items():
        if name.startswith(_RESERVED):
            continue
        try:
            os.setxattr(file, name, value, follow_symlinks=isinstance(file, int))
        except OSError as error:
            if name == _CAPABILITIES or not _is_unsupported(name, error):
                raise


def _is_unsupported(name: bytes, error: OSError) -> bool:
    """Return whether the file cannot have the attribute: user.* is for regular files and directories."""
    return error.errno == errno.ENOTSUP or (error.errno == errno.EPERM and name.startswith(b"user."))
