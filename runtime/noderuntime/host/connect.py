"""Connections to localhost inside a pod, without a process there.

A socket belongs to the network namespace of the thread that made it, wherever it is used later:
a throw-away thread goes there and makes it, everything else happens on the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

from noderuntime.errors import HostError
from noderuntime.host import syscalls
from noderuntime.host.threads import in_own_thread

_LOCALHOST = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_TIMEOUT = 10.0
"""Seconds; on loopback only a listener with a full backlog takes any."""


async def connect(netns: Path | None, port: int) -> socket.socket:
    """Connect to a TCP port; HostError says why neither address answers."""
    reasons = []
    for family, address in _LOCALHOST:
        try:
            return await _try(netns, family, address, port)
        except OSError as error:
            reasons.append(error)
    words = ", ".join(f"{where}: {_say(why)}" for (_, where), why in zip(_LOCALHOST, reasons, strict=True))
    raise HostError(f"connect to port {port}", reasons[0].errno or errno.ETIMEDOUT, words)


async def _try(netns: Path | None, family: int, address: str, port: int) -> socket.socket:
    made = await in_own_thread(lambda: _socket(netns, family))
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
