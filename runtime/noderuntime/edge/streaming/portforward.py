"""Port-forward: connections into a pod, multiplexed over one connection of the client (k8s.io/cri-streaming).

Over SPDY (``portforward.k8s.io``) the client opens a pair of streams for each connection: ``data``, and
``error`` for an error message. A pair has a ``requestid`` and a ``port``. kubectl also tunnels this SPDY
through a WebSocket. Over a plain WebSocket (``v4.channel.k8s.io``) the ports are in the CRI request: port n
has the channels 2n and 2n+1, and each starts with the port as two bytes, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator

from noderuntime.core import log, tasks
from noderuntime.core.errors import NoderuntimeError
from noderuntime.core.sessions import Forward
from noderuntime.edge.streaming.channel import Channel
from noderuntime.edge.streaming.spdylink import SpdyLink, SpdyStream
from noderuntime.edge.streaming.websocket import WebSocket
from noderuntime.edge.streaming.wschannels import WebSocketChannels

_log = log.get(__name__)

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"
WEBSOCKET_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")
MOST_STREAMS = 512
"""Two for each connection."""


class Pairs:
    """Streams that wait for the other stream of their pair."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], SpdyStream] = {}

    def add(self, stream: SpdyStream) -> tuple[SpdyStream, SpdyStream] | None:
        """Return (data, error) when the pair is complete. ValueError if it cannot be part of a pair."""
        kind = stream.headers.get("streamtype")
        if kind not in ("data", "error"):
            raise ValueError(f"stream type {kind!r}")
        self._waiting = {key: waits for key, waits in self._waiting.items() if not waits.inbox.broken}
        request = _request_of(stream, kind)
        other = self._waiting.pop((request, "error" if kind == "data" else "data"), None)
        if other is not None:
            return (stream, other) if kind == "data" else (other, stream)
        if (request, kind) in self._waiting:
            raise ValueError(f"a second {kind} stream of request {request!r}")
        self._waiting[request, kind] = stream
        return None


def _request_of(stream: SpdyStream, kind: str) -> str:
    """Return the pair's ID. The oldest clients send none, and open the error stream first."""
    return stream.headers.get("requestid") or str(stream.number - (2 if kind == "data" else 0))


async def serve_spdy(link: SpdyLink, forward: Forward) -> None:
    """Serve pairs of streams until cancelled, or until the client disconnects."""
    pairs = Pairs()
    try:
        async with tasks.Group() as group:
            while True:
                stream = await link.opened.get()
                try:
                    port = _port(stream.headers.get("port", ""))
                    pair = pairs.add(stream)
                except ValueError:
                    await stream.reset()
                    continue
                await stream.accept()
                if pair is not None:
                    group.start(_serve_pair(*pair, port, forward), name="forward a connection")
    except* ConnectionError as error:
        _log.debug("client disconnected", error=error)


def websocket_link(socket: WebSocket, forward: Forward, protocol: str) -> WebSocketChannels:
    """Return the channels of a WebSocket. Its client can send on the data channels."""
    count = 2 * len(forward.ports)
    return WebSocketChannels(socket, protocol, count, range(0, count, 2))


async def serve_websocket(link: WebSocketChannels, forward: Forward) -> None:
    """Serve the ports of the request until all connections have ended."""
    async with tasks.Group() as group:
        for port, data, error in zip(forward.ports, link.channels[::2], link.channels[1::2], strict=True):
            for channel in (data, error):
                await channel.write(struct.pack("<H", port))
            group.start(_serve(data, error, port, forward), name="forward a connection")


async def _serve_pair(data: SpdyStream, error: SpdyStream, port: int, forward: Forward) -> None:
    if not await _serve(data, error, port, forward):
        await data.reset()
        await error.reset()


def _port(text: str) -> int:
    """Return the port. ValueError if the text is not a port."""
    port = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < port < 1 << 16:
        raise ValueError(f"port {text[:20]!r}")
    return port


async def _serve(data: Channel, error: Channel, port: int, forward: Forward) -> bool:
    """Serve one connection to its end. Return False if it failed, after sending the error to the client."""
    error.ignore()
    served = True
    try:
        await forward.serve(port, _ChannelStdio(data))
    except NoderuntimeError as reason:
        _log.info("port cannot be forwarded", sandbox=forward.sandbox_id, port=port, error=reason)
        message = f"error forwarding port {port} to pod {forward.sandbox_id}: {reason}"
        await error.write(message.encode())
        served = False
    except ConnectionError as reason:
        _log.debug("client reset a connection", sandbox=forward.sandbox_id, port=port, error=reason)
    data.ignore()
    await error.finish()
    await data.finish()
    return served


class _ChannelStdio:
    """A channel as the client's end of a connection. See :class:`noderuntime.core.sessions.Stdio`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def read(self) -> bytes:
        """Return the client's next bytes."""
        return await self._channel.read()

    async def write(self, stream: int, data: bytes) -> None:
        """Send to the client. There is only one stream."""
        await self._channel.write(data)

    async def sizes(self) -> AsyncGenerator[tuple[int, int]]:
        """Yield nothing: a forwarded connection has no terminal."""
        return
        yield
