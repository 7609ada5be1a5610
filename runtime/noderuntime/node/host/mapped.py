"""Root filesystems of containers in user namespaces: shared layers on idmapped mounts.

An overlay mount itself cannot be idmapped, but its layers can be on idmapped mounts. Those are created in a
private mount namespace of the calling thread, and only the finished overlay is moved to the original
namespace. So a failure leaves no mounts behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from noderuntime.core.errors import host_error
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import UserNamespace


def mount_mapped(user: UserNamespace, common: str, target: str, mount: Callable[[], None]) -> None:
    """Mount at the target, with layers mapped to the IDs of a user namespace.

    ``common`` is the common parent directory of the layers. Its idmapped copy is the working directory of
    ``mount``, which mounts at the target, with layers by relative paths. Must run in a temporary thread.
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
