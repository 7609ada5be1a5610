"""Writes the entries of one layer into a directory.

The attributes of directories are set at the end, children first: every entry created in a directory changes
its time, and default ACLs or a set-group-ID bit would affect the entries.

After an error, the target directory is incomplete and the caller must remove it.
"""

from __future__ import annotations

import errno
import os
import stat

from noderuntime.core.errors import HostError, InvalidArgument, NoderuntimeError, ResourceExhausted
from noderuntime.node.layers import whiteouts
from noderuntime.node.layers.attributes import PERMISSIONS, AttributeWriter
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar import entry as kinds
from noderuntime.node.layers.tar.entry import Entry, Sparse, quoted
from noderuntime.node.layers.tar.limits import Limits
from noderuntime.node.layers.tar.names import split
from noderuntime.node.layers.tar.reader import Archive
from noderuntime.node.layers.tree import IMPLIED, DirectoryAttributes, Tree

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {kinds.CHARACTER: stat.S_IFCHR, kinds.BLOCK: stat.S_IFBLK, kinds.FIFO: stat.S_IFIFO}
_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_INVALID_LAYER = (
    errno.E2BIG,
    errno.EFBIG,
    errno.EINVAL,
    errno.EMLINK,
    errno.ENAMETOOLONG,
    errno.EOVERFLOW,
    errno.ERANGE,
)


class Unpacking:
    """The unpacking of one layer into an empty directory. The process's umask must be 0."""

    def __init__(self, stream: Stream, target: str, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._archive = Archive(stream, limits)
        self._tree = Tree(target, limits)
        self._attributes = AttributeWriter()
        self._devices = 0
        self._writers = dict.fromkeys(_DEVICES, self._device) | {
            kinds.DIRECTORY: self._directory,
            kinds.FILE: self._file,
            kinds.LINK: self._link,
            kinds.SYMLINK: self._symlink,
        }
        self._name = b""

    @property
    def entries(self) -> int:
        """The number of headers read so far."""
        return self._archive.headers

    @property
    def implied(self) -> tuple[str, ...]:
        """The directories without an entry of their own (see :class:`.tar.limits.Unpacked`)."""
        directories = self._tree.directories.items()
        return tuple(os.fsdecode(path) for path, attributes in directories if attributes is IMPLIED and path)

    @property
    def opaque(self) -> bool:
        """Whether the layer hides all layers below it."""
        return b"" in self._tree.opaque

    def run(self) -> None:
        """Write all entries.

        InvalidArgument for an invalid archive, ResourceExhausted for an exceeded limit or a full disk,
        HostError for other errors of the kernel.
        """
        try:
            for entry in self._archive:
                self._name = entry.name
                self._write(entry)
            for path in reversed(self._tree.directories):
                self._name = path
                self._finish_directory(path)
        except OSError as error:
            raise _to_error(error, self._name) from error
        finally:
            self._tree.close()

    def _write(self, entry: Entry) -> None:
        parts = split(entry.name, self._limits)
        if whiteouts.PREFIX in entry.name and whiteouts.apply(self._tree, parts):
            return
        if parts:
            self._writers[entry.kind](entry, parts, parts.pop())
        elif entry.kind == kinds.DIRECTORY:
            self._tree.keep(b"", _directory_attributes(entry))
        else:
            raise InvalidArgument(f"the layer's root {quoted(entry.name)} is not a directory")

    def _directory(self, entry: Entry, parents: list[bytes], name: bytes) -> None:
        self._tree.enter(parents)
        self._tree.make_directory(name, _directory_attributes(entry))

    def _file(self, entry: Entry, parents: list[bytes], name: bytes) -> None:
        parent = self._tree.enter(parents)
        mode = entry.mode & PERMISSIONS
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        except FileExistsError:
            self._tree.remove(name)
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        try:
            if entry.sparse is not None:
                self._pieces(entry.sparse, fd)
            elif entry.size:
                self._stream.copy(entry.size, fd)
            self._attributes.set_on_file(fd, entry)
        finally:
            os.close(fd)

    def _pieces(self, sparse: Sparse, fd: int) -> None:
        for offset, length in sparse.pieces:
            os.lseek(fd, offset, os.SEEK_SET)
            self._stream.copy(length, fd)
        os.truncate(fd, sparse.size)

    def _link(self, entry: Entry, parents: list[bytes], name: bytes) -> None:
        """Create a hard link. The file keeps the attributes of its own entry."""
        prefix = f"{quoted(entry.name)} is a hard link to {quoted(entry.target)}"
        *directories, source = split(entry.target, self._limits) or [b""]
        if not source:
            raise InvalidArgument(f"{prefix}, which is not a file")
        directory = os.dup(self._tree.enter(directories, create=False))
        try:
            self._tree.enter(parents)
            self._tree.replace(
                name,
                lambda parent: os.link(
                    source, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False
                ),
            )
        except FileNotFoundError:
            raise InvalidArgument(f"{prefix}, which does not exist in the layer") from None
        except PermissionError:
            raise InvalidArgument(f"{prefix}, which is not a file") from None
        finally:
            os.close(directory)

    def _symlink(self, entry: Entry, parents: list[bytes], name: bytes) -> None:
        if not entry.target:
            raise InvalidArgument(f"{quoted(entry.name)} is a symlink with an empty target")
        parent = self._tree.enter(parents)
        self._tree.replace(name, lambda parent: os.symlink(entry.target, name, dir_fd=parent))
        self._attributes.set_on_name(parent, name, entry)

    def _device(self, entry: Entry, parents: list[bytes], name: bytes) -> None:
        device = 0 if entry.kind == kinds.FIFO else self._number(entry)
        mode = _DEVICES[entry.kind] | (entry.mode & PERMISSIONS)
        parent = self._tree.enter(parents)
        self._tree.replace(name, lambda parent: os.mknod(name, mode, device, dir_fd=parent))
        self._attributes.set_on_name(parent, name, entry)

    def _number(self, entry: Entry) -> int:
        major, minor = entry.device
        if not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
            raise InvalidArgument(f"{quoted(entry.name)} has an invalid device number: {major}:{minor}")
        self._devices += 1
        if self._devices > self._limits.devices:
            raise ResourceExhausted(f"the layer has more than the limit of {self._limits.devices} devices")
        return os.makedev(major, minor)

    def _finish_directory(self, path: bytes) -> None:
        tree = self._tree
        fd = tree.enter(path.split(b"/") if path else [])
        if path and path in tree.opaque:
            os.setxattr(fd, whiteouts.OPAQUE_XATTR, b"y")
        self._attributes.set_on_directory(fd, tree.directories[path])


def _directory_attributes(entry: Entry) -> DirectoryAttributes:
    return DirectoryAttributes(entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs)


def _to_error(error: OSError, name: bytes) -> NoderuntimeError:
    code, reason = error.errno or 0, error.strerror or str(error)
    if code in _DISK_FULL:
        return ResourceExhausted(f"writing {quoted(name)} failed: {reason}")
    if code in _INVALID_LAYER:
        return InvalidArgument(f"entry {quoted(name)} of the layer is invalid: {reason}")
    return HostError(f"unpack {quoted(name)}", code, reason)
