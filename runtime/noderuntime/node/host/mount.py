"""Mounts: what ``mount(8)`` does with option words, as system calls.

Order of the calls for one :class:`Mount`: the mount itself, a remount where a
bind wants flags (the kernel ignores them on the first call), then propagation.
If a later call fails the mount is taken away again.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from noderuntime.core.blocking import apart
from noderuntime.core.errors import HostError, host_error
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import Mount, UserNamespace
from noderuntime.node.host.mapped import mount_mapped

_REC = 0x4000
_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "sync": 0x10,
    "dirsync": 0x80,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "bind": syscalls.MS_BIND,
    "rbind": syscalls.MS_BIND | _REC,
    "relatime": 0x200000,
    "strictatime": 0x1000000,
}
_CLEARS = {
    "rw": syscalls.MS_RDONLY,
    "suid": 0x2,
    "dev": 0x4,
    "exec": 0x8,
    "async": 0x10,
    "atime": 0x400,
    "defaults": 0,
}
_PROPAGATION = {
    "unbindable": 1 << 17,
    "private": 1 << 18,
    "slave": 1 << 19,
    "shared": 1 << 20,
}
_PROPAGATION |= {f"r{word}": flag | _REC for word, flag in _PROPAGATION.items()}

_PAGE = 4096
"""mount(2) takes at most this much data, its closing zero included."""


@dataclass(frozen=True, slots=True)
class _Parsed:
    flags: int
    propagation: int
    data: str


async def mount(wanted: Mount) -> None:
    """Mount, creating no directory; all or nothing."""
    forever = math.inf  # a mount that came after the deadline would stay
    await apart(lambda: _mount(wanted), what=f"mount {wanted.target}", seconds=forever)


async def unmount(target: Path) -> None:
    """Detach everything that is mounted exactly there; nothing mounted or no such path is no error."""
    await apart(lambda: detach(str(target)), what=f"unmount {target}", subject=str(target))


async def mounted(paths: Collection[Path]) -> set[Path]:
    """Return those of the paths on which another filesystem than their parent's is mounted."""
    return await apart(lambda: set(filter(_is_mount_point, paths)), what="look up mounts", abandon=True)


def _is_mount_point(path: Path) -> bool:
    try:
        return path.lstat().st_dev != path.parent.lstat().st_dev
    except OSError:
        return False


def detach(target: str) -> None:
    """Unmount lazily, mount by mount, without following a link; the blocking half of :func:`unmount`."""
    while True:
        try:
            syscalls.umount(target, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except HostError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return
            raise


def parse_options(options: tuple[str, ...]) -> _Parsed:
    """Sort option words into mount flags, propagation flags and data for the filesystem."""
    flags = propagation = 0
    data: list[str] = []
    for word in options:
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word in _CLEARS:
            flags &= ~_CLEARS[word]
        elif word in _PROPAGATION:
            propagation |= _PROPAGATION[word]
        else:
            data.append(word)
    return _Parsed(flags, propagation, ",".join(data))


def _mount(wanted: Mount) -> None:
    parsed, target = parse_options(wanted.options), str(wanted.target)
    if wanted.fstype == "overlay":
        _mount_overlay(wanted, parsed, target)
    else:
        if wanted.user is not None:
            _give(wanted.source, wanted.user)
        syscalls.mount(wanted.source, target, wanted.fstype, parsed.flags, parsed.data)
    try:
        if parsed.flags & syscalls.MS_BIND and parsed.flags & ~(syscalls.MS_BIND | _REC):
            flags = parsed.flags & ~_REC | syscalls.MS_REMOUNT | _kept_flags(target)
            syscalls.mount("", target, "", flags)
        if parsed.propagation:
            syscalls.mount("", target, "", parsed.propagation)
    except HostError:
        detach(target)
        raise


def _kept_flags(target: str) -> int:
    """Return the flags that the source's mount has; a remount that drops them would loosen it."""
    known = _FLAGS["ro"] | _FLAGS["nosuid"] | _FLAGS["nodev"] | _FLAGS["noexec"]
    return os.statvfs(target).f_flag & known


def _mount_overlay(wanted: Mount, parsed: _Parsed, target: str) -> None:
    """Mount an overlay, with layers named relative to where they are if they are many, or to be mapped.

    The thread is a throw-away one and gets a working directory of its own.
    """
    words = dict(word.partition("=")[::2] for word in parsed.data.split(","))
    if wanted.user is None and len(parsed.data) < _PAGE:
        syscalls.mount(wanted.source, target, wanted.fstype, parsed.flags, parsed.data)
        return
    common, data = _relative(words)
    mount_here = partial(syscalls.mount, wanted.source, target, wanted.fstype, parsed.flags, data)
    if wanted.user is not None:
        _give(words["upperdir"], wanted.user)
        mount_mapped(wanted.user, common, target, mount_here)
    else:
        syscalls.unshare(syscalls.CLONE_FS)
        os.chdir(common)
        mount_here()


def _relative(words: dict[str, str]) -> tuple[str, str]:
    """Return the directory that holds all layers, and the options with paths relative to it.

    Sixty layers by full path are more than the kernel takes.
    """
    layers = words["lowerdir"].split(":")
    common = os.path.commonpath(layers)
    words |= {"lowerdir": ":".join(os.path.relpath(layer, common) for layer in layers)}
    short = ",".join(f"{key}={value}" if value else key for key, value in words.items())
    if len(short) >= _PAGE:  # the kernel would cut it off without a word
        raise HostError(f"mount overlay of {len(layers)} layers", errno.E2BIG, "too many layers")
    return common, short


def _give(directory: str, user: UserNamespace) -> None:
    """Make a directory that only one container writes to that container's root's."""
    try:
        os.chown(directory, *user.root, follow_symlinks=False)
    except OSError as error:
        raise host_error(f"give {directory} away", error) from error
