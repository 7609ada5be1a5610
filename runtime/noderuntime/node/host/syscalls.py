"""System calls that Python 3.11 lacks, through libc. A failure raises HostError with its errno.

They act on the calling *thread* (unshare, setns) or block (mount, umount2), so
call them in a separate thread: see :func:`noderuntime.core.blocking.apart`.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from noderuntime.core.errors import HostError

CLONE_FS = 0x200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_IDMAP = 0x00100000
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.syscall.restype = ctypes.c_long


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces, or give it its own working directory: unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, flags: int) -> None:
    """Move the calling thread into the namespace of a descriptor: setns(2)."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns")


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """Mount a filesystem or change a mount: mount(2)."""
    failed = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode(),
        flags,
        os.fsencode(data) if data else None,
    )
    _check(failed, f"mount {fstype or source} at {target}")


def umount(target: str, flags: int) -> None:
    """Unmount a filesystem: umount2(2)."""
    _check(_libc.umount2(ctypes.c_char_p(os.fsencode(target)), ctypes.c_int(flags)), f"unmount {target}")


def clone_mount(path: str) -> int:
    """Return a detached copy of the mount at a path, with the path as its root: open_tree(2)."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    fd = int(_libc.syscall(_number(_SYS_OPEN_TREE), _AT_FDCWD, _path(path), ctypes.c_uint(flags)))
    _check(fd, f"copy the mount of {path}")
    return fd


def map_mount(mount_fd: int, user_namespace: int) -> None:
    """Map the IDs of a detached mount to those of a user namespace: mount_setattr(2)."""
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
    failed = _libc.syscall(
        _number(_SYS_MOUNT_SETATTR),
        mount_fd,
        _path(""),
        ctypes.c_uint(_AT_EMPTY_PATH),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _check(failed, "map the IDs of a mount")


def place_mount(mount_fd: int, target: str) -> None:
    """Attach a detached mount at a path: move_mount(2)."""
    flags = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
    failed = _libc.syscall(_number(_SYS_MOVE_MOUNT), mount_fd, _path(""), _AT_FDCWD, _path(target), flags)
    _check(failed, f"mount at {target}")


def open_directory_here(parent: int, name: str) -> int:
    """Open a subdirectory for reading. Fails for a symlink, and for a mount point (EXDEV).

    openat2(2) detects bind mounts of the same filesystem, which a comparison of st_dev does not.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = _openat2(parent, name, flags, _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH)
    _check(fd, f"open directory {name!r}")
    return fd


def open_in_root(root: int, path: str) -> int:
    """Open a file for reading, as a process with that root directory does. Does not wait for a fifo.

    Symlinks in the untrusted tree are confined to it (openat2(2), RESOLVE_IN_ROOT).
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    fd = _openat2(root, path, flags, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    _check(fd, f"open {path!r} in a root filesystem")
    return fd


def find_in_root(root: int, path: str) -> int:
    """Return an O_PATH descriptor of a path, resolved as for a process with that root directory."""
    fd = _openat2(root, path, os.O_PATH | os.O_CLOEXEC, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    _check(fd, f"find {path!r} in a root filesystem")
    return fd


def sync_filesystem(path: Path) -> None:
    """Flush the filesystem of a path: syncfs(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(ctypes.c_int(fd)), f"sync the filesystem of {path}")
    finally:
        os.close(fd)


def _openat2(parent: int, path: str, flags: int, resolve: int) -> int:
    how = struct.pack("QQQ", flags, 0, resolve)
    return int(
        _libc.syscall(
            _number(_SYS_OPENAT2),
            ctypes.c_int(parent),
            _path(path),
            ctypes.c_char_p(how),
            ctypes.c_size_t(len(how)),
        )
    )


def _number(call: int) -> ctypes.c_long:
    return ctypes.c_long(call)


def _path(path: str) -> ctypes.c_char_p:
    return ctypes.c_char_p(os.fsencode(path))


def _check(result: int, action: str) -> None:
    if result < 0:
        errno = ctypes.get_errno()
        raise HostError(action, errno, os.strerror(errno))
