"""conmon's attach socket as a conversation with a container.

It is a SOCK_SEQPACKET socket in the bundle. Each packet from conmon is one reading of the container's
output behind a byte that names the stream; each packet to it goes to the container's stdin. conmon
closes that stdin when we finish writing, unless it was told to leave it open. It writes to us in its one
thread and waits while we do not read: the container's log waits as well then, and so does its end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from noderuntime.core.blocking import apart
from noderuntime.core.errors import FailedPrecondition, Unavailable
from noderuntime.node.host.base import STDERR, STDOUT
from noderuntime.node.monitor.control import tell

_STREAMS = {2: STDOUT, 3: STDERR}
_LARGEST_PACKET = 1 << 16
_INPUT = 8192
"""Bytes a packet; conmon cuts off what is longer than 32 KiB."""
_CONNECT_TIMEOUT = 5.0
_RESIZE = "1 {rows} {columns}\n"
"""Message to the ``ctl`` fifo."""
_SETTLE = 0.05
"""Seconds until the next: of two messages that it reads at once conmon takes the first twice."""


class AttachedContainer:
    """See :class:`noderuntime.node.host.base.Conversation`."""

    def __init__(self, connection: socket.socket, bundle: Path) -> None:
        self._socket = connection
        self._bundle = bundle

    async def read(self) -> tuple[int, bytes]:
        """Return one packet; no bytes when the container has ended."""
        await asyncio.sleep(0)  # a container that always has something to say must not keep the loop
        try:
            packet = await asyncio.get_running_loop().sock_recv(self._socket, _LARGEST_PACKET)
        except ConnectionResetError:
            packet = b""
        return _STREAMS.get(packet[0], STDOUT) if packet else STDOUT, packet[1:]

    async def write(self, data: bytes) -> None:
        """Write to the container's stdin."""
        loop = asyncio.get_running_loop()
        for start in range(0, len(data), _INPUT):
            try:
                await loop.sock_sendall(self._socket, data[start : start + _INPUT])
            except ConnectionResetError as error:
                raise BrokenPipeError from error

    def end_input(self) -> None:
        """Say that nothing more comes; what the container sees of it is conmon's choice."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal; a container that has ended needs none."""
        with suppress(FailedPrecondition):
            tell(self._bundle / "ctl", _RESIZE.format(rows=rows, columns=columns).encode())
            await asyncio.sleep(_SETTLE)

    async def close(self) -> None:
        """Leave the container alone."""
        self._socket.close()


async def attach(bundle: Path) -> AttachedContainer:
    """Connect to the monitor of a container."""
    connection = await apart(lambda: _connect(bundle), what="attach", subject=f"monitor of {bundle}")
    return AttachedContainer(connection, bundle)


def _connect(bundle: Path) -> socket.socket:
    """Connect through the directory's descriptor: the path may be longer than a socket's address."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        directory = os.open(bundle, os.O_PATH | os.O_CLOEXEC)
        try:
            made.settimeout(_CONNECT_TIMEOUT)
            made.connect(f"/proc/self/fd/{directory}/attach")
        finally:
            os.close(directory)
        made.setblocking(False)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        made.close()
        raise FailedPrecondition("the container's monitor has ended") from error
    except OSError as error:
        made.close()
        raise Unavailable(f"the container's monitor does not answer: {error}") from error
    return made
