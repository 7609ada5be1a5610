"""Root filesystems of containers in user namespaces: layers that are shared by all, seen through other IDs.

overlayfs does not let its own mount be mapped, but its layers may lie on mapped mounts. Those are made
where nobody else sees them, in a mount namespace of the calling thread; only the finished overlay is
brought back. So whatever happens on the way leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from noderuntime.core.errors import host_error
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import UserNamespace


def mount_mapped(user: UserNamespace, common: str, target: str, mount: Callable[[], None]) -> None:
    """Mount at the target as a user namespace sees it.

    ``common`` is the directory that has all layers, and becomes the working directory of ``mount``, which
    mounts at the target by what it finds there. For a throw-away thread.
    """
    try:
        with ExitStack() as stack:

            def keep(fd: int) -> int:
                stack.callback(os.close, fd)
                return fd

            flags = os.O_RDONLY | os.O_CLOEXEC
            home = keep(os.open("/proc/thread-self/ns/mnt", flags))
            inside = keep(os.open(user.pin, flags))
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("", "/", "", syscalls.MS_PRIVATE | syscalls.MS_REC)
            layers = keep(syscalls.clone_mount(common))
            syscalls.map_mount(layers, inside)
            syscalls.place_mount(layers, target)
            os.chdir(target)
            mount()
            made = keep(syscalls.clone_mount(target))
            syscalls.setns(home, syscalls.CLONE_NEWNS)
            syscalls.place_mount(made, target)
    except OSError as error:
        raise host_error(f"mount mapped layers at {target}", error) from error
