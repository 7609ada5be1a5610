"""Adds addresses to an interface in a pinned network namespace, by rtnetlink(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from noderuntime.core.blocking import apart
from noderuntime.core.errors import HostError, host_error
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import Address

_RTM_NEWADDR = 20
_FLAGS = 0x1 | 0x4 | 0x200 | 0x400
"""NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL and NLM_F_CREATE."""
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_ANSWER = struct.Struct("=IHHIIi")
"""A netlink header, followed by the negative errno of the acknowledgement."""


async def add_addresses(pin: Path, interface: str, addresses: Sequence[Address]) -> None:
    """Add the addresses that an interface lacks. Do nothing if there is no such interface.

    HostError if the namespace cannot be entered or the kernel rejects an address.
    """
    if addresses:
        await apart(lambda: _add_all(pin, interface, addresses), what=f"add addresses in {pin}")


def _add_all(pin: Path, interface: str, addresses: Sequence[Address]) -> None:
    try:
        with open(pin, "rb", buffering=0) as namespace:
            syscalls.setns(namespace.fileno(), syscalls.CLONE_NEWNET)
    except OSError as error:
        raise host_error(f"enter {pin}", error) from error
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        return
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as kernel:
        for address in addresses:
            kernel.send(_request(index, address))
            refused = -_ANSWER.unpack_from(kernel.recv(1 << 12))[-1]
            if refused not in (0, errno.EEXIST):
                raise HostError(f"add {address} to {interface}", refused, os.strerror(refused))


def _request(index: int, address: Address) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.ip.packed
    attributes = b"".join(
        struct.pack("=HH", 4 + len(packed), kind) + packed for kind in (_IFA_LOCAL, _IFA_ADDRESS)
    )
    body = struct.pack("=BBBBI", family, address.network.prefixlen, 0, 0, index) + attributes
    return struct.pack("=IHHII", 16 + len(body), _RTM_NEWADDR, _FLAGS, 0, 0) + body
