"""The attach socket of conmon, as a conversation with a container.

It is a SOCK_SEQPACKET socket in the bundle. Each packet from conmon is a byte that identifies the stream,
followed by a chunk of the container's output. Each packet to conmon is written to the container's stdin.
conmon closes that stdin when this side shuts down writing, unless it runs with ``--leave-stdin-open``.
conmon has one thread, which blocks while this side does not read. The container's log and the report of its
exit are delayed meanwhile.
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
from noderuntime.node.monitor.control import send

_STREAMS = {2: STDOUT, 3: STDERR}
_LARGEST_PACKET = 1 << 16
_INPUT = 8192
"""Bytes per packet. conmon truncates packets longer than 32 KiB."""
_CONNECT_TIMEOUT = 5.0
_RESIZE = "1 {rows} {columns}\n"
"""The message for the ``ctl`` fifo."""
_SETTLE = 0.05
"""Seconds between messages. If conmon reads two messages at once, it applies the first one twice."""


class AttachedContainer:
    """See :class:`noderuntime.node.host.base.Conversation`."""

    def __init__(self, connection: socket.socket, bundle: Path) -> None:
        self._socket = connection
        self._bundle = bundle

    async def read(self) -> tuple[int, bytes]:
        """Return the stream and the data of one packet. No data means that the container has ended."""
        await asyncio.sleep(0)  # sock_recv does not yield while data is available
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
        """Shut down writing. conmon then closes the container's stdin, or leaves it open if configured so."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal. No error if the container has ended."""
        with suppress(FailedPrecondition):
            send(self._bundle / "ctl", _RESIZE.format(rows=rows, columns=columns).encode())
            await asyncio.sleep(_SETTLE)

    async def close(self) -> None:
        """Detach. The container keeps running."""
        self._socket.close()


async def attach(bundle: Path) -> AttachedContainer:
    """Connect to the monitor of a container. FailedPrecondition if the monitor has ended."""
    connection = await apart(lambda: _connect(bundle), what="attach", subject=f"monitor of {bundle}")
    return AttachedContainer(connection, bundle)


def _connect(bundle: Path) -> socket.socket:
    """Connect through the directory's descriptor, because the path can exceed the length of sun_path."""
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
