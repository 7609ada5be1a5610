"""Configures new namespaces from inside, before a pod uses them. Blocks. Imports few modules."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Collection, Iterable, Mapping

from noderuntime.core.errors import invalid_argument
from noderuntime.node.host import syscalls
from noderuntime.node.host.sysctl_names import dotted

_CLONE = {
    "net": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
}
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def clone_flags(kinds: Iterable[str]) -> int:
    """Return the flags of unshare(2) for kinds of namespaces."""
    flags = 0
    for kind in kinds:
        flags |= _CLONE[kind]
    return flags


def configure(kinds: Collection[str], hostname: str | None, settings: Mapping[str, str]) -> None:
    """Set ``lo`` up, set the hostname, and write the sysctls (paths below ``/proc/sys``).

    OSError on failure. InvalidArgument if the kernel lacks a sysctl or rejects its value.
    """
    if "net" in kinds:
        _bring_up("lo")
    if "uts" in kinds and hostname:
        socket.sethostname(hostname)
    write_sysctls(settings)


def write_sysctls(settings: Mapping[str, str]) -> None:
    """Write sysctls in the namespaces of the calling thread (paths below ``/proc/sys``).

    InvalidArgument if the kernel lacks a sysctl or rejects its value.
    """
    for path, value in settings.items():
        try:
            _set(path, value)
        except OSError as error:
            raise invalid_argument(f"sysctl {dotted(path)} cannot be set to {value[:80]!r}", error) from error


def _set(path: str, value: str) -> None:
    fd = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _bring_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as handle:
        request = struct.pack("16sh22x", interface.encode(), 0)
        _, flags = struct.unpack("16sh22x", fcntl.ioctl(handle, _SIOCGIFFLAGS, request))
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh22x", interface.encode(), flags | _IFF_UP))
