"""A connection over WebSocket (RFC 6455): binary messages in both directions.

It is a :class:`noderuntime.edge.streaming.wire.Wire` itself, with one message per write: kubectl tunnels
SPDY through it. Long messages are passed on in pieces, so memory does not grow with their length.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from noderuntime.edge.streaming.request import Refused, Request, switching
from noderuntime.edge.streaming.wire import Wire

_VERSION = "13"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a message."""

    data: bytes
    last: bool


class WebSocket:
    """The server's end of an open WebSocket."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._connection = Connection(ConnectionType.SERVER)
        self._closed = False

    async def piece(self) -> Piece | None:
        """Return the next part of a message, or None after a close or a protocol violation."""
        while True:
            for event in self._connection.events():
                if isinstance(event, BytesMessage | TextMessage):
                    data = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
                    return Piece(data, event.message_finished)
                await self._answer(event)
            if self._closed or not (received := await self._wire.read()):
                return None
            self._connection.receive_data(received)

    async def read(self) -> bytes:
        """Return the next bytes of the client's messages as one byte stream."""
        while (piece := await self.piece()) is not None:
            if piece.data:
                return piece.data
        return b""

    async def write(self, data: bytes, *, text: bool = False) -> None:
        """Send one message."""
        await self._send(TextMessage(data.decode("ascii")) if text else BytesMessage(data))

    async def finish(self) -> None:
        """Send a close. The client's own close can be read afterwards."""
        await self._send(CloseConnection(CloseReason.NORMAL_CLOSURE))
        await self._wire.finish()

    async def poke(self) -> None:
        """Send a ping without waiting for its answer."""
        await self._send(Ping())

    async def _answer(self, event: Event) -> None:
        """Answer a ping or a close. A protocol violation arrives as a close to send."""
        if isinstance(event, Ping):
            await self._send(event.response())
        elif isinstance(event, CloseConnection):
            self._closed = True
            if self._connection.state is not ConnectionState.CLOSED:
                await self._wire.write(self._connection.send(event.response()))
                await self._wire.finish()

    async def _send(self, event: Event) -> None:
        if self._connection.state is not ConnectionState.OPEN:
            raise ConnectionResetError("the WebSocket is closed")
        await self._wire.write(self._connection.send(event))


def accept(request: Request, protocol: str) -> bytes:
    """Return the response that opens a WebSocket (RFC 6455, section 4.2.2). Refused for other requests."""
    if request.headers.get("sec-websocket-version") != _VERSION:
        message = f"only version {_VERSION} of WebSocket is supported"
        raise Refused(HTTPStatus.UPGRADE_REQUIRED, message, {"Sec-WebSocket-Version": _VERSION})
    key = request.headers.get("sec-websocket-key", "")
    if not key or request.method != "GET":
        raise Refused(HTTPStatus.BAD_REQUEST, "a WebSocket request must be a GET with a Sec-WebSocket-Key")
    headers = {"Sec-WebSocket-Accept": generate_accept_token(key.encode("latin-1")).decode("ascii")}
    return switching("websocket", headers | ({"Sec-WebSocket-Protocol": protocol} if protocol else {}))
