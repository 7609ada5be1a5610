"""Connections to localhost in a pod's network namespace, without a process in the pod.

A socket stays in the network namespace of the thread that created it. So a temporary thread enters the
namespace and creates the socket, and the event loop connects and uses it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from noderuntime.core.blocking import apart
from noderuntime.core.errors import HostError
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import STDOUT

_LOCALHOST = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_CHUNK = 1 << 16
_TIMEOUT = 10.0
"""In seconds. On loopback a connection is only delayed by a full backlog."""


class Connection:
    """A TCP connection, as a :class:`noderuntime.node.host.base.Conversation`. Either side can send first."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made

    async def read(self) -> tuple[int, bytes]:
        """Return the next data. A connection that was reset has ended."""
        await asyncio.sleep(0)  # sock_recv does not yield while data is available
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK)
        except ConnectionError:
            data = b""
        return STDOUT, data

    async def write(self, data: bytes) -> None:
        """Send data. BrokenPipeError if the connection was reset."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except ConnectionError as error:
            raise BrokenPipeError from error

    def end_input(self) -> None:
        """Shut down the sending direction."""
        with suppress(OSError):  # ENOTCONN: it was reset, which the next read reports
            self._socket.shutdown(socket.SHUT_WR)

    async def resize(self, rows: int, columns: int) -> None:
        """Do nothing: there is no terminal."""

    async def close(self) -> None:
        """Close the connection."""
        self._socket.close()


async def connect(netns: Path | None, port: int) -> Connection:
    """Connect to a TCP port of localhost. HostError with the reasons for both addresses."""
    reasons = []
    for family, address in _LOCALHOST:
        try:
            return Connection(await _try(netns, family, address, port))
        except OSError as error:
            reasons.append(error)
    texts = ", ".join(f"{where}: {_text(why)}" for (_, where), why in zip(_LOCALHOST, reasons, strict=True))
    raise HostError(f"connect to port {port}", reasons[0].errno or errno.ETIMEDOUT, texts)


async def _try(netns: Path | None, family: int, address: str, port: int) -> socket.socket:
    made = await apart(lambda: _socket(netns, family), what="make a socket")
    try:
        async with asyncio.timeout(_TIMEOUT):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


def _socket(netns: Path | None, family: int) -> socket.socket:
    if netns is not None:
        namespace = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        finally:
            os.close(namespace)
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


def _text(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else "timed out"
