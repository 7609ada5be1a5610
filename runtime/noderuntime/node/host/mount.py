"""Mounts with the options of mount(8), as system calls.

The calls for one :class:`Mount` are: the mount itself, a remount if a bind mount has
flags (mount(2) ignores them in the first call), then the propagation.
If a later call fails, the mount is undone.
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
_PROPAGATION |= {f"r{option}": flag | _REC for option, flag in _PROPAGATION.items()}

_PAGE = 4096
"""The limit of mount(2) for the data, including its terminating null byte."""


@dataclass(frozen=True, slots=True)
class _Parsed:
    flags: int
    propagation: int
    data: str


async def mount(wanted: Mount) -> None:
    """Mount a filesystem. The target must exist. After an error nothing is mounted."""
    forever = math.inf  # a mount that succeeded after a deadline would be left behind
    await apart(lambda: _mount(wanted), what=f"mount {wanted.target}", seconds=forever)


async def unmount(target: Path) -> None:
    """Lazily unmount all mounts at a path. No error if there are none or the path does not exist."""
    await apart(lambda: detach(str(target)), what=f"unmount {target}", subject=str(target))


async def mounted(paths: Collection[Path]) -> set[Path]:
    """Return the paths that are on another filesystem than their parent directories."""
    return await apart(lambda: set(filter(_is_mount_point, paths)), what="look up mounts", abandon=True)


def _is_mount_point(path: Path) -> bool:
    try:
        return path.lstat().st_dev != path.parent.lstat().st_dev
    except OSError:
        return False


def detach(target: str) -> None:
    """Lazily unmount all mounts at a path without following symlinks. Blocks, unlike :func:`unmount`."""
    while True:
        try:
            syscalls.umount(target, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except HostError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return
            raise


def parse_options(options: tuple[str, ...]) -> _Parsed:
    """Split options into mount flags, propagation flags and data for the filesystem."""
    flags = propagation = 0
    data: list[str] = []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option in _CLEARS:
            flags &= ~_CLEARS[option]
        elif option in _PROPAGATION:
            propagation |= _PROPAGATION[option]
        else:
            data.append(option)
    return _Parsed(flags, propagation, ",".join(data))


def _mount(wanted: Mount) -> None:
    parsed, target = parse_options(wanted.options), str(wanted.target)
    if wanted.fstype == "overlay":
        _mount_overlay(wanted, parsed, target)
    else:
        if wanted.user is not None:
            _chown(wanted.source, wanted.user)
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
    """Return the restrictive flags of the source's mount, which a remount must keep."""
    known = _FLAGS["ro"] | _FLAGS["nosuid"] | _FLAGS["nodev"] | _FLAGS["noexec"]
    return os.statvfs(target).f_flag & known


def _mount_overlay(wanted: Mount, parsed: _Parsed, target: str) -> None:
    """Mount an overlay. The paths of layers are relative if they are too long, or idmapped.

    Must run in a temporary thread, because it changes the thread's working directory.
    """
    options = dict(option.partition("=")[::2] for option in parsed.data.split(","))
    if wanted.user is None and len(parsed.data) < _PAGE:
        syscalls.mount(wanted.source, target, wanted.fstype, parsed.flags, parsed.data)
        return
    common, data = _relative(options)
    mount_here = partial(syscalls.mount, wanted.source, target, wanted.fstype, parsed.flags, data)
    if wanted.user is not None:
        _chown(options["upperdir"], wanted.user)
        mount_mapped(wanted.user, common, target, mount_here)
    else:
        syscalls.unshare(syscalls.CLONE_FS)
        os.chdir(common)
        mount_here()


def _relative(options: dict[str, str]) -> tuple[str, str]:
    """Return the common parent directory of the layers, and the options with paths relative to it.

    The absolute paths of 60 layers exceed the kernel's limit. HostError (E2BIG) if the relative ones do too.
    """
    layers = options["lowerdir"].split(":")
    common = os.path.commonpath(layers)
    options |= {"lowerdir": ":".join(os.path.relpath(layer, common) for layer in layers)}
    short = ",".join(f"{key}={value}" if value else key for key, value in options.items())
    if len(short) >= _PAGE:  # the kernel would silently truncate it
        raise HostError(f"mount overlay of {len(layers)} layers", errno.E2BIG, "too many layers")
    return common, short


def _chown(directory: str, user: UserNamespace) -> None:
    """Change the owner of a container's writable directory to the root of its user namespace."""
    try:
        os.chown(directory, *user.root, follow_symlinks=False)
    except OSError as error:
        raise host_error(f"change the owner of {directory}", error) from error
