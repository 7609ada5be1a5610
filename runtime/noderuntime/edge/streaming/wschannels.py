"""Channels over a WebSocket: the first byte of a message is the channel (k8s.io/streaming, wsstream).

In protocols with the prefix ``base64`` the channel is a digit and the rest of the message is base64. Since
version 5, a message of 255 and a channel ends the client's data on that channel.
"""

from __future__ import annotations

import binascii
from collections.abc import Collection

from noderuntime.edge.streaming.inbox import Inbox
from noderuntime.edge.streaming.websocket import WebSocket

_CLOSE = 255
_QUANTUM = 4
"""Characters of base64 that decode on their own."""


class WebSocketChannel:
    """See :class:`noderuntime.edge.streaming.channel.Channel`."""

    def __init__(self, link: WebSocketChannels, number: int) -> None:
        self.inbox = Inbox()
        self._link = link
        self._number = number

    async def read(self) -> bytes:
        """Return the client's next bytes."""
        return await self.inbox.take()

    async def write(self, data: bytes) -> None:
        """Send one message, which can be empty."""
        await self._link.send(self._number, data)

    async def finish(self) -> None:
        """Do nothing: the protocol has no message for it, the end of the connection serves."""

    def ignore(self) -> None:
        """Drop all further data of the client."""
        self.inbox.close()


class WebSocketChannels:
    """See :class:`noderuntime.edge.streaming.channel.Link`. Channels are numbered from 0.

    Data of the client is dropped on channels that are not ``readable``.
    """

    def __init__(self, socket: WebSocket, protocol: str, count: int, readable: Collection[int]) -> None:
        self._socket = socket
        self._base64 = "base64." in protocol
        self._closes = protocol.startswith("v5.")
        self.channels = [WebSocketChannel(self, number) for number in range(count)]
        for number, channel in enumerate(self.channels):
            if number not in readable:
                channel.ignore()

    async def run(self) -> None:
        """Deliver received data to its channels. Messages for other channels are ignored."""
        number, carry = -1, b""
        while (piece := await self._socket.piece()) is not None:
            data = piece.data
            if number < 0 and data:
                number, data = self._number(data[0]), data[1:]
            data, carry = self._decode(carry + data)
            await self._deliver(number, data)
            if piece.last:
                number, carry = -1, b""

    async def send(self, number: int, data: bytes) -> None:
        """Send one message on a channel."""
        if self._base64:
            text = bytes((ord("0") + number,)) + binascii.b2a_base64(data, newline=False)
            await self._socket.write(text, text=True)
        else:
            await self._socket.write(bytes((number,)) + data)

    async def poke(self) -> None:
        """Send a ping without waiting for its answer."""
        await self._socket.poke()

    async def finish(self) -> None:
        """Send the end of the session."""
        await self._socket.finish()

    def _number(self, first: int) -> int:
        return first - ord("0") if self._base64 else first

    def _decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the decoded part of the data, and the characters that need more to decode."""
        if not self._base64:
            return data, b""
        whole = len(data) - len(data) % _QUANTUM
        try:
            return binascii.a2b_base64(data[:whole], strict_mode=True), data[whole:]
        except binascii.Error as error:
            raise ConnectionError(f"the client sent invalid base64: {error}") from error

    async def _deliver(self, number: int, data: bytes) -> None:
        if number == _CLOSE and self._closes:
            if data and data[0] < len(self.channels):
                self.channels[data[0]].inbox.end()
        elif 0 <= number < len(self.channels):
            await self.channels[number].inbox.deliver(data, self)
