"""A connection over SPDY, with its streams as channels."""

from __future__ import annotations

import asyncio

from noderuntime.edge.streaming.inbox import Inbox
from noderuntime.edge.streaming.spdy import Event, GoneAway, Opened, Received, ServerSession, WasReset
from noderuntime.edge.streaming.wire import Wire

_PART = 1 << 14
"""Bytes that are handled without a pause: at most some 1,400 frames, which take 15 ms."""


class SpdyStream:
    """One stream. See :class:`noderuntime.edge.streaming.channel.Channel`."""

    def __init__(self, link: SpdyLink, opened: Opened) -> None:
        self.number = opened.stream_id
        self.headers = opened.headers
        self.inbox = Inbox()
        self._link = link
        if opened.finished:
            self.inbox.end()

    async def accept(self) -> None:
        """Accept the stream. The client waits for that before it sends."""
        self._link.session.accept(self.number)
        await self._link.flush()

    async def read(self) -> bytes:
        """Return the client's next bytes."""
        return await self.inbox.take()

    async def write(self, data: bytes) -> None:
        """Send data."""
        self._link.session.send(self.number, data)
        await self._link.flush()

    async def finish(self) -> None:
        """Send the end of our data."""
        self._link.session.send(self.number, b"", finish=True)
        await self._link.flush()

    def ignore(self) -> None:
        """Drop all further data of the client."""
        self.inbox.close()

    async def reset(self) -> None:
        """End the stream at once in both directions."""
        self._link.session.reset(self.number)
        self._link.forget(self.number)
        await self._link.flush()


class SpdyLink:
    """See :class:`noderuntime.edge.streaming.channel.Link`. New streams are queued in ``opened``."""

    def __init__(self, wire: Wire, most_streams: int) -> None:
        self._wire = wire
        self.session = ServerSession(most_streams)
        self.opened: asyncio.Queue[SpdyStream] = asyncio.Queue(most_streams)
        self._streams: dict[int, SpdyStream] = {}

    async def run(self) -> None:
        """Deliver received data to its streams."""
        while data := await self._wire.read():
            for at in range(0, len(data), _PART):
                for event in self.session.receive(data[at : at + _PART]):
                    await self._handle(event)
                await self.flush()
                await asyncio.sleep(0)  # a client's flood of small frames must not hold up the event loop

    async def poke(self) -> None:
        """Send a ping without waiting for its answer."""
        self.session.ping()
        await self.flush()

    async def finish(self) -> None:
        """Send the end of the session."""
        self.session.go_away()
        await self.flush()
        await self._wire.finish()

    async def flush(self) -> None:
        """Send the session's pending output."""
        if output := self.session.take_output():
            await self._wire.write(output)

    def forget(self, number: int) -> None:
        """Drop a stream that either side has reset."""
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.inbox.reset()

    async def _handle(self, event: Event) -> None:
        match event:
            case Opened():
                stream = SpdyStream(self, event)
                if not event.finished:
                    self._streams[event.stream_id] = stream
                await self.opened.put(stream)
            case Received():
                await self._deliver(event)
            case WasReset():
                self.forget(event.stream_id)  # no effect if it has finished
            case GoneAway():
                pass  # the client opens no more streams; existing ones continue

    async def _deliver(self, event: Received) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        await stream.inbox.deliver(event.data, self)
        if event.finished:
            del self._streams[event.stream_id]
            stream.inbox.end()
