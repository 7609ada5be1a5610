"""Owner, extended attributes, mode and time of what was unpacked.

The order matters: owner, then extended attributes (a change of owner drops file
capabilities), then the mode with its set-ID bits (it drops those, too), then the time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from noderuntime.node.layers.tar import entry as kinds
from noderuntime.node.layers.tar.entry import Entry
from noderuntime.node.layers.tree import Look

PERMISSIONS = 0o777
"""What may be given already when a file is made."""

_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_CAPABILITIES = b"security.capability"
_OURS = (b"trusted.", b"user.overlay.")
"""Not for an archive to say: overlayfs and the node's own tools believe these. containerd agrees."""


class Looks:
    """Gives entries what they shall look like; whatever they were made of belongs to this process."""

    def __init__(self) -> None:
        self._owner = (os.geteuid(), os.getegid())

    def of_file(self, fd: int, entry: Entry) -> None:
        """Finish a file that was made with the entry's permissions."""
        if (entry.uid, entry.gid) != self._owner:
            os.chown(fd, entry.uid, entry.gid)
        if entry.xattrs:
            _set_xattrs(fd, entry.xattrs)
        if entry.xattrs or entry.mode & _SPECIAL_BITS:
            os.chmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def of_directory(self, fd: int, look: Look) -> None:
        """Finish a directory, once everything is in it."""
        if (look.uid, look.gid) != self._owner:
            os.chown(fd, look.uid, look.gid)
        if look.xattrs:
            _set_xattrs(fd, look.xattrs)
        os.chmod(fd, look.mode)
        os.utime(fd, ns=(look.mtime, look.mtime))

    def of_name(self, parent: int, name: bytes, entry: Entry) -> None:
        """Finish what cannot be opened; only this process writes here, so the name is what it made."""
        if (entry.uid, entry.gid) != self._owner:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            _set_xattrs(b"/proc/self/fd/%d/%b" % (parent, name), entry.xattrs)
        if entry.kind != kinds.SYMLINK and (entry.xattrs or entry.mode & _SPECIAL_BITS):
            os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)


def _set_xattrs(where: int | bytes, xattrs: Mapping[bytes, bytes]) -> None:
    """Set extended attributes, but leave out those that cannot be kept there; capabilities never."""
    for name, value in xattrs.items():
        if name.startswith(_OURS):
            continue
        try:
            os.setxattr(where, name, value, follow_symlinks=isinstance(where, int))
        except OSError as error:
            if name == _CAPABILITIES or not _impossible(name, error):
                raise


def _impossible(name: bytes, error: OSError) -> bool:
    """Tell whether nothing of this kind has such an attribute: only files and directories have a user's."""
    return error.errno == errno.ENOTSUP or (error.errno == errno.EPERM and name.startswith(b"user."))
