"""Clients of the streaming server: SPDY and WebSocket over a real connection, and raw requests."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

from spdyclient import GOAWAY, RST_STREAM, SYN_REPLY, SpdyClient, data
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

_SECONDS = 20.0


@dataclass
class Response:
    """The response to a request."""

    status: int
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def ask(
    url: str,
    headers: Mapping[str, str],
    *,
    method: str = "POST",
    tls: ssl.SSLContext | None = None,
    tail: bytes = b"",
) -> Response:
    """Send a request and the bytes in tail, and return the response, completely unless it is a 101."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
    lines = [
        f"{method} {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        *(f"{k}: {v}" for k, v in headers.items()),
    ]
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode() + tail)
    async with asyncio.timeout(_SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        status = int(head[0].split()[1])
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = b"" if status == 101 else await reader.read()
    if status != 101:
        writer.close()
        await writer.wait_closed()
    return Response(status, fields, body, reader, writer)


@dataclass
class Session:
    """A client that has switched protocols; it collects the received data by stream or channel."""

    response: Response
    received: defaultdict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    over: bool = False
    """Whether the server has closed the connection."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Session:
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Abort the connection."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self.response.writer.transport.abort()
        with suppress(ConnectionError):
            await self.response.writer.wait_closed()

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait until a condition on the received data is true."""
        async with asyncio.timeout(_SECONDS):
            while not happened():
                assert not self.over, f"the server closed the connection after {dict(self.received)}"[:2000]
                self._news.clear()
                await self._news.wait()

    async def receives(self, number: int, words: bytes) -> None:
        """Wait until a stream has received these bytes."""
        await self.until(lambda: words in self.received[number])

    async def ends(self) -> None:
        """Wait until the server has closed the connection."""
        await self.until(lambda: self.over)

    async def write(self, raw: bytes) -> None:
        """Send bytes."""
        self.response.writer.write(raw)
        await self.response.writer.drain()

    async def _listen(self) -> None:
        try:
            while received := await self.response.reader.read(1 << 16):
                await self._take(received)
                self._news.set()
        except ConnectionError:
            pass
        self.over = True
        self._news.set()

    async def _take(self, received: bytes) -> None:
        raise NotImplementedError


@dataclass
class SpdySession(Session):
    """SPDY over TCP."""

    client: SpdyClient = field(default_factory=SpdyClient)
    answered: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    was_reset: set[int] = field(default_factory=set)
    gone_away: bool = False

    async def open(self, **headers: str) -> int:
        """Open a stream, wait for the server's reply, and return the stream's number."""
        number = self.client.next_id
        await self.write_frames(self.client.open(headers))
        await self.until(lambda: number in self.answered | self.was_reset or self.over)
        return number

    async def send(self, number: int, content: bytes, *, fin: bool = False) -> None:
        """Send data on a stream."""
        await self.write_frames(data(number, content, fin=fin))

    async def write_frames(self, frames: bytes) -> None:
        """Send frames."""
        await self.write(frames)

    async def _take(self, received: bytes) -> None:
        for frame in self.client.frames(received):
            if frame.kind == 0:
                self.received[frame.stream_id] += frame.content
                if frame.fin:
                    self.finished.add(frame.stream_id)
            elif frame.kind == SYN_REPLY:
                self.answered.add(frame.stream_id)
            elif frame.kind == RST_STREAM:
                self.was_reset.add(frame.stream_id)
            elif frame.kind == GOAWAY:
                self.gone_away = True


@dataclass
class WebSocketSession(Session):
    """Channels over WebSocket."""

    connection: Connection = field(default_factory=lambda: Connection(ConnectionType.CLIENT))
    messages: list[bytes] = field(default_factory=list)
    close_code: int = 0

    async def send(self, channel: int, content: bytes) -> None:
        """Send one message on a channel."""
        await self.event(BytesMessage(bytes((channel,)) + content))

    async def event(self, event: Event) -> None:
        """Send an event."""
        await self.write(self.connection.send(event))

    async def _take(self, received: bytes) -> None:
        self.connection.receive_data(received)
        for event in self.connection.events():
            if isinstance(event, BytesMessage | TextMessage):
                output = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
                self._hear(output, event.message_finished)
            elif isinstance(event, Ping):
                await self.event(event.response())
            elif isinstance(event, CloseConnection):
                self.close_code = event.code
                if self.connection.state is not ConnectionState.CLOSED:
                    await self.event(event.response())

    _half: bytes = b""

    def _hear(self, output: bytes, whole: bool) -> None:
        self._half += output
        if not whole:
            return
        message, self._half = self._half, b""
        self.messages.append(message)
        if message:
            self.received[message[0]] += message[1:]


@dataclass
class TunnelSession(SpdySession):
    """SPDY in a WebSocket's messages."""

    socket: Connection = field(default_factory=lambda: Connection(ConnectionType.CLIENT))

    async def write_frames(self, frames: bytes) -> None:
        """Send frames, as one message."""
        await self.write(self.socket.send(BytesMessage(frames)))

    async def _take(self, received: bytes) -> None:
        self.socket.receive_data(received)
        for event in self.socket.events():
            if isinstance(event, BytesMessage):
                await super()._take(bytes(event.data))


async def spdy(url: str, protocol: str = "v4.channel.k8s.io", **more: str) -> SpdySession:
    """Return a session that has switched to SPDY."""
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "Content-Length": "0"}
    answer = await ask(url, headers | ({"X-Stream-Protocol-Version": protocol} if protocol else {}) | more)
    assert answer.status == 101, answer
    return SpdySession(answer)


def websocket_headers(*protocols: str) -> dict[str, str]:
    """Return the request headers of a WebSocket client."""
    headers = {
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    return headers | ({"Sec-WebSocket-Protocol": ", ".join(protocols)} if protocols else {})


async def websocket(url: str, *protocols: str) -> WebSocketSession:
    """Return a session that has switched to WebSocket."""
    answer = await ask(url, websocket_headers(*protocols), method="GET")
    assert answer.status == 101, answer
    assert answer.headers.get("sec-websocket-protocol", "") in (*protocols, "")
    return WebSocketSession(answer)


async def tunnel(url: str) -> TunnelSession:
    """Return a session that has switched to SPDY in a WebSocket."""
    answer = await ask(url, websocket_headers("SPDY/3.1+portforward.k8s.io"), method="GET")
    assert answer.status == 101, answer
    return TunnelSession(answer)
