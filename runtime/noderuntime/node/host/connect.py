"""Connections to localhost inside a pod, without a process there.

A socket belongs to the network namespace of the thread that made it, wherever it is used later:
a throw-away thread goes there and makes it, everything else happens on the event loop.
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
"""Seconds; on loopback only a listener with a full backlog takes any."""


class Connection:
    """A TCP connection, as a :class:`noderuntime.node.host.base.Conversation`. Either side can send first."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made

    async def read(self) -> tuple[int, bytes]:
        """Return what came next; one that was broken off has ended."""
        await asyncio.sleep(0)  # a peer that always has something to say would keep the loop for itself
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK)
        except ConnectionError:
            data = b""
        return STDOUT, data

    async def write(self, data: bytes) -> None:
        """Send."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except ConnectionError as error:
            raise BrokenPipeError from error

    def end_input(self) -> None:
        """Say that we have sent all."""
        with suppress(OSError):  # ENOTCONN: it was broken off, and reading will tell
            self._socket.shutdown(socket.SHUT_WR)

    async def resize(self, rows: int, columns: int) -> None:
        """There is no terminal."""

    async def close(self) -> None:
        """Close it."""
        self._socket.close()


async def connect(netns: Path | None, port: int) -> Connection:
    """Connect to a TCP port; HostError says why neither address answers."""
    reasons = []
    for family, address in _LOCALHOST:
        try:
            return Connection(await _try(netns, family, address, port))
        except OSError as error:
            reasons.append(error)
    words = ", ".join(f"{where}: {_say(why)}" for (_, where), why in zip(_LOCALHOST, reasons, strict=True))
    raise HostError(f"connect to port {port}", reasons[0].errno or errno.ETIMEDOUT, words)


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


def _say(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else "no answer"
