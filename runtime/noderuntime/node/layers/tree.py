"""A directory tree that is written by untrusted names.

No name can escape the tree, on any kernel: each system call gets an open directory and *one* name without
a slash, never ``..``, and never follows a symlink. (openat2 resolves whole paths safely, but must be called
through ctypes, which takes longer than the two or three calls it saves; older kernels do not have it.)
A path through a symlink of the same layer is resolved here with the tree's root as ``/``, as other
runtimes do.

The ancestors of the last entry stay open: archives list the contents of a directory together, so most
entries need no lookup.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple

from noderuntime.core.errors import InvalidArgument, ResourceExhausted
from noderuntime.node.layers.tar.entry import NO_XATTRS, quoted
from noderuntime.node.layers.tar.limits import Limits

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_SYMLINKS = 40
"""Symlinks in one path, as in the kernel."""
_DIRECTORY_BYTES = 384
"""Memory per recorded directory in bytes, without its path and extended attributes."""
_XATTR_BYTES = 256
"""Memory per extended attribute in bytes, without its name and value."""


class DirectoryAttributes(NamedTuple):
    """The attributes of a directory, which are set after its contents are complete."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Nanoseconds since 1970."""
    xattrs: Mapping[bytes, bytes] = NO_XATTRS


IMPLIED = DirectoryAttributes(uid=os.geteuid(), gid=os.getegid())
"""The attributes of implied directories, which occur only in the names of other entries."""


class Tree:
    """The directories of one layer, with a current directory."""

    def __init__(self, target: str, limits: Limits) -> None:
        self._names: list[bytes] = []
        self._fds = [os.open(target, _DIRECTORY)]
        self._limits = limits
        self._free_bytes = limits.directory_bytes
        self._steps = 0
        self.current = b""
        """The path of the current directory, without symlinks."""
        self.directories: dict[bytes, DirectoryAttributes] = {b"": IMPLIED}
        """Attributes by path, parents before children."""
        self.opaque: set[bytes] = set()
        """Paths of opaque directories, which hide the contents of lower layers."""

    def close(self) -> None:
        """Close all descriptors."""
        for fd in self._fds:
            os.close(fd)

    def enter(self, parts: list[bytes], *, create: bool = True) -> int:
        """Make a directory the current one and return its descriptor, which is valid until the next call.

        Missing directories are created. InvalidArgument if the path contains something else than
        directories and symlinks or, with ``create`` false, if it does not exist.
        """
        names = self._names
        if parts == names:
            return self._fds[-1]
        common = 0
        for current, requested in zip(names, parts, strict=False):
            if current != requested:
                break
            common += 1
        self._ascend(common)
        self._walk(parts[common:], create)
        self.current = b"/".join(names)
        return self._fds[-1]

    def path(self, name: bytes) -> bytes:
        """Return the path from the root, without symlinks, of a name in the current directory."""
        return self.current + b"/" + name if self.current else name

    def make_directory(self, name: bytes, attributes: DirectoryAttributes) -> None:
        """Create a directory in the current one, replacing any other file. ResourceExhausted."""
        path = self.path(name)
        if path not in self.directories:
            self._make_directory(name, path)
        self.keep(path, attributes)

    def keep(self, path: bytes, attributes: DirectoryAttributes) -> None:
        """Record the attributes of a directory for later. ResourceExhausted beyond the limit."""
        self._free_bytes -= _DIRECTORY_BYTES + len(path)
        if attributes.xattrs:
            sizes = (_XATTR_BYTES + len(key) + len(value) for key, value in attributes.xattrs.items())
            self._free_bytes -= sum(sizes)
        if self._free_bytes < 0:
            raise ResourceExhausted(
                f"the layer has too many directories (limit: {self._limits.directory_bytes} bytes of memory)"
            )
        self.directories[path] = attributes

    def replace(self, name: bytes, make: Callable[[int], None]) -> None:
        """Create a file in the current directory, replacing what the layer has under the name."""
        parent = self._fds[-1]
        try:
            make(parent)
        except FileExistsError:
            self.remove(name)
            make(parent)

    def remove(self, name: bytes) -> None:
        """Remove an entry of the current directory, recursively."""
        self._remove(self._fds[-1], name, self.path(name))

    def _remove(self, parent: int, name: bytes, path: bytes) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            self._empty(parent, name, path)
            os.rmdir(name, dir_fd=parent)
            self.directories.pop(path, None)
            self.opaque.discard(path)

    def _empty(self, parent: int, name: bytes, path: bytes) -> None:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            for entry in os.listdir(fd):
                child = os.fsencode(entry)
                self._remove(fd, child, path + b"/" + child)
        finally:
            os.close(fd)

    def _walk(self, parts: list[bytes], create: bool) -> None:
        """Descend name by name, and resolve symlinks."""
        pending = parts[::-1]
        links = 0
        while pending:
            self._steps += 1
            link = self._step(pending.pop(), create)
            if link is None:
                continue
            links += 1
            if links > _MAX_SYMLINKS:
                raise InvalidArgument(f"the path {quoted(b'/'.join(parts))} has too many symlinks")
            if link.startswith(b"/"):
                self._ascend(0)
            pending += [part for part in reversed(link.split(b"/")) if part not in (b"", b".")]
        if self._steps > self._limits.steps:
            raise ResourceExhausted(
                f"resolving the layer's paths takes more than the limit of {self._limits.steps} steps"
            )

    def _step(self, name: bytes, create: bool) -> bytes | None:
        """Enter a directory and return None, or return the target of a symlink."""
        if name == b"..":  # from a symlink: names in the archive cannot contain it
            self._ascend(max(0, len(self._names) - 1))
            return None
        if len(self._names) >= self._limits.depth:
            raise InvalidArgument(f"the path {quoted(b'/'.join(self._names))} is nested too deeply")
        parent = self._fds[-1]
        path = b"/".join([*self._names, name])
        if path not in self.directories and (link := self._prepare(parent, name, path, create)) is not None:
            return link
        self._fds.append(os.open(name, _DIRECTORY, dir_fd=parent))
        self._names.append(name)
        return None

    def _prepare(self, parent: int, name: bytes, path: bytes, create: bool) -> bytes | None:
        """Ensure that a directory exists and return None, or return the target of a symlink."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            if not create:
                raise InvalidArgument(f"{quoted(path)} does not exist in the layer") from None
            found = None
        if found is not None and stat.S_ISLNK(found.st_mode):
            return os.readlink(name, dir_fd=parent)
        if found is not None and not (create and is_whiteout(found)):
            raise InvalidArgument(f"the layer uses {quoted(path)} as a directory, but it is not one")
        self._make_directory(name, path)
        self.keep(path, IMPLIED)
        return None

    def _make_directory(self, name: bytes, path: bytes) -> None:
        parent = self._fds[-1]
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False)):
                self.opaque.add(path)
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)

    def _ascend(self, depth: int) -> None:
        while len(self._names) > depth:
            self._names.pop()
            os.close(self._fds.pop())


def is_whiteout(found: os.stat_result) -> bool:
    """Return whether overlayfs treats the file as a whiteout: it is the character device 0/0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
