"""The clients that are connected to a unix socket, by sock_diag(7)."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301
_SHOW_NAME_AND_PEER = 1 | 4
_ATTRIBUTE_NAME, _ATTRIBUTE_PEER = 0, 2
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")


def clients_of(path: str) -> set[int] | None:
    """Return the inodes of the sockets that are connected to the listener bound at a path.

    None if the kernel has no unix_diag. Only sockets of this network namespace are found.
    """
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_NAME_AND_PEER, 0, 0)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as link:
            link.settimeout(5)
            link.send(header + request)
            return {peer for name, peer in _sockets(link) if name == path and peer}
    except OSError:
        return None


def _sockets(link: socket.socket) -> Iterator[tuple[str, int]]:
    """Yield the name and the peer's inode of each unix socket in a dump. OSError if the kernel rejects it."""
    while True:
        data = link.recv(1 << 16)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise OSError("sock_diag rejected the request")
            yield _read(data[_HEADER.size + _MESSAGE.size : length])
            data = data[(length + 3) & ~3 :]


def _read(attributes: bytes) -> tuple[str, int]:
    name, peer = "", 0
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        value = attributes[_ATTRIBUTE.size : length]
        if kind == _ATTRIBUTE_NAME:
            with contextlib.suppress(UnicodeDecodeError):
                name = value.rstrip(b"\0").decode()
        elif kind == _ATTRIBUTE_PEER:
            (peer,) = struct.unpack("=I", value)
        attributes = attributes[max((length + 3) & ~3, _ATTRIBUTE.size) :]
    return name, peer
