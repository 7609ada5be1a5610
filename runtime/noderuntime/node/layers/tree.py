"""A directory tree that is written by names from an untrusted list.

Nothing can lead out of it, on any kernel: every system call gets an open directory
and *one* name without a slash, never ``..``, and never follows a link. (openat2 would
resolve whole paths safely, but must be called through ctypes, which takes longer than the two
or three plain calls it saves, and older kernels would need this code anyway.) A name that leads
through a link of the same layer is resolved here, with the tree's root as ``/``, as other runtimes do.

The directories on the way to the last entry stay open: archives list a directory's
contents together, so that most entries cost no lookup at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple

from noderuntime.core.errors import InvalidArgument, ResourceExhausted
from noderuntime.node.layers.tar.entry import NO_XATTRS, shown
from noderuntime.node.layers.tar.limits import Limits

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS = 40
"""Links on one way, as for the kernel."""
_BOOKKEEPING = 384
"""Bytes that a directory costs us in memory, beside its path and its extended attributes."""
_ATTRIBUTE = 256
"""The same for each of those."""


class Look(NamedTuple):
    """What a directory gets once everything is in it."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Nanoseconds since 1970."""
    xattrs: Mapping[bytes, bytes] = NO_XATTRS


IMPLIED = Look(uid=os.geteuid(), gid=os.getegid())
"""Of directories that the archive only mentions in the names of other entries: as made, without a time."""


class Tree:
    """The directories of one layer, one of which is the current one."""

    def __init__(self, target: str, limits: Limits) -> None:
        self._names: list[bytes] = []
        self._fds = [os.open(target, _DIRECTORY)]
        self._limits = limits
        self._room = limits.kept
        self._steps = 0
        self.current = b""
        """The path of the current directory, free of links."""
        self.directories: dict[bytes, Look] = {b"": IMPLIED}
        """By path, parents before children."""
        self.opaque: set[bytes] = set()
        """Those that hide what lower layers have in them."""

    def close(self) -> None:
        """Close all descriptors."""
        for fd in self._fds:
            os.close(fd)

    def enter(self, parts: list[bytes], *, create: bool = True) -> int:
        """Make a directory the current one; returns its descriptor, valid until the next call.

        What is missing on the way is made. InvalidArgument if the way leads through something else than
        directories and links, and with ``create`` false also if it does not exist.
        """
        names = self._names
        if parts == names:
            return self._fds[-1]
        common = 0
        for ours, wanted in zip(names, parts, strict=False):
            if ours != wanted:
                break
            common += 1
        self._up(common)
        self._walk(parts[common:], create)
        self.current = b"/".join(names)
        return self._fds[-1]

    def path(self, name: bytes) -> bytes:
        """Return the path, from the root and free of links, of a name in the current directory."""
        return self.current + b"/" + name if self.current else name

    def make_directory(self, name: bytes, look: Look) -> None:
        """Have a directory in the current one; whatever else has the name goes away. ResourceExhausted."""
        path = self.path(name)
        if path not in self.directories:
            self._make_directory(name, path)
        self.keep(path, look)

    def keep(self, path: bytes, look: Look) -> None:
        """Remember what a directory shall look like once its contents are there; ResourceExhausted."""
        self._room -= _BOOKKEEPING + len(path)
        if look.xattrs:
            self._room -= sum(_ATTRIBUTE + len(key) + len(value) for key, value in look.xattrs.items())
        if self._room < 0:
            raise ResourceExhausted(
                f"the layer has too many directories: more than {self._limits.kept} bytes to keep"
            )
        self.directories[path] = look

    def replace(self, name: bytes, make: Callable[[int], None]) -> None:
        """Make something in the current directory; what the layer itself has under the name goes away."""
        parent = self._fds[-1]
        try:
            make(parent)
        except FileExistsError:
            self.remove(name)
            make(parent)

    def remove(self, name: bytes) -> None:
        """Remove an entry of the current directory, with all that is in it if it is a directory."""
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
        """Go down name by name, and where a link points when it is one."""
        ahead = parts[::-1]
        links = 0
        while ahead:
            self._steps += 1
            link = self._step(ahead.pop(), create)
            if link is None:
                continue
            links += 1
            if links > _LINKS:
                raise InvalidArgument(f"the way to {shown(b'/'.join(parts))} leads through too many links")
            if link.startswith(b"/"):
                self._up(0)
            ahead += [part for part in reversed(link.split(b"/")) if part not in (b"", b".")]
        if self._steps > self._limits.steps:
            raise ResourceExhausted(
                f"the layer's names lead through more than {self._limits.steps} directories"
            )

    def _step(self, name: bytes, create: bool) -> bytes | None:
        """Go into a directory, or return where it points if it is a link."""
        if name == b"..":  # from a link: names of the archive have none
            self._up(max(0, len(self._names) - 1))
            return None
        if len(self._names) >= self._limits.depth:
            raise InvalidArgument(f"{shown(b'/'.join(self._names))} is too deep")
        parent = self._fds[-1]
        path = b"/".join([*self._names, name])
        if path not in self.directories and (link := self._prepare(parent, name, path, create)) is not None:
            return link
        self._fds.append(os.open(name, _DIRECTORY, dir_fd=parent))
        self._names.append(name)
        return None

    def _prepare(self, parent: int, name: bytes, path: bytes, create: bool) -> bytes | None:
        """See to it that a directory is there, or return where it points if it is a link."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            if not create:
                raise InvalidArgument(f"{shown(path)} is not in the layer") from None
            found = None
        if found is not None and stat.S_ISLNK(found.st_mode):
            return os.readlink(name, dir_fd=parent)
        if found is not None and not (create and is_whiteout(found)):
            raise InvalidArgument(f"the layer leads through {shown(path)}, which is no directory")
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

    def _up(self, depth: int) -> None:
        while len(self._names) > depth:
            self._names.pop()
            os.close(self._fds.pop())


def is_whiteout(found: os.stat_result) -> bool:
    """Tell whether overlayfs would take a name for removed: it is character device 0/0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
