"""The server's end of a SPDY/3.1 session: converts frames to events, and calls to bytes to send.

The client opens a stream. It ends when both sides have finished it or one side has reset it. Frames for a
stream that has ended can have crossed our own frame in transit and are ignored; frames for a stream that
never existed violate the protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from noderuntime.edge.streaming.spdy.frames import (
    FIN,
    STREAM_BITS,
    UNIDIRECTIONAL,
    ControlFrame,
    DataPiece,
    FrameReader,
    Kind,
    SpdyError,
    control_frame,
    data_frame,
)
from noderuntime.edge.streaming.spdy.headers import HeaderReader, HeaderWriter

_PROTOCOL_ERROR, _REFUSED, _CANCEL, _ALREADY_CLOSED = 1, 3, 5, 9
"""Status codes of RST_STREAM."""

_PING = 2
"""The ID of all our pings; those of a server are even."""

_NUMBER, _TWO_NUMBERS = struct.Struct(">I"), struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Opened:
    """The client opened a stream and waits for :meth:`ServerSession.accept`."""

    stream_id: int
    headers: dict[str, str]
    finished: bool
    """Whether the client will send no data."""


@dataclass(frozen=True, slots=True)
class Received:
    """Data of a stream."""

    stream_id: int
    data: bytes
    finished: bool
    """Whether this is the end of the client's data."""


@dataclass(frozen=True, slots=True)
class WasReset:
    """The client has reset a stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The client will open no more streams."""


Event = Opened | Received | WasReset | GoneAway


@dataclass(slots=True)
class _Stream:
    """The directions of a stream that are open."""

    receives: bool
    sends: bool


class ServerSession:
    """One session. ``most_streams`` limits the client's open streams."""

    def __init__(self, most_streams: int) -> None:
        self._most_streams = most_streams
        self._frames = FrameReader()
        self._headers_in, self._headers_out = HeaderReader(), HeaderWriter()
        self._streams: dict[int, _Stream] = {}
        self._last_id = 0
        self._output = bytearray()

    def receive(self, data: bytes) -> Iterator[Event]:
        """Yield the events of received bytes. SpdyError ends the session. See :meth:`take_output`."""
        for frame in self._frames.feed(data):
            event = self._data(frame) if isinstance(frame, DataPiece) else self._control(frame)
            if event is not None:
                yield event

    def take_output(self) -> bytes:
        """Return the bytes to send now."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def accept(self, stream_id: int) -> None:
        """Accept a stream."""
        if stream_id in self._streams:
            self._send(Kind.SYN_REPLY, _NUMBER.pack(stream_id) + self._headers_out.empty())

    def send(self, stream_id: int, data: bytes, *, finish: bool = False) -> None:
        """Send data (less than 16 MiB). No effect if we have finished the stream or it has ended."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.sends:
            return
        self._output += data_frame(stream_id, data, fin=finish)
        if finish:
            stream.sends = False
            self._forget_ended(stream_id, stream)

    def reset(self, stream_id: int) -> None:
        """End a stream at once in both directions. No effect if it has ended."""
        if self._streams.pop(stream_id, None) is not None:
            self._reject(stream_id, _CANCEL)

    def ping(self) -> None:
        """Send a ping, which shows whether the connection still works. Its answer is ignored."""
        self._send(Kind.PING, _NUMBER.pack(_PING))

    def go_away(self) -> None:
        """Send the end of the session."""
        self._send(Kind.GOAWAY, _TWO_NUMBERS.pack(self._last_id, 0))

    def _data(self, piece: DataPiece) -> Event | None:
        stream = self._streams.get(piece.stream_id)
        if stream is None:
            self._check_was_opened(piece.stream_id)
            return None
        if not stream.receives:
            del self._streams[piece.stream_id]
            self._reject(piece.stream_id, _ALREADY_CLOSED)
            return WasReset(piece.stream_id)
        if piece.finished:
            self._stop_receiving(piece.stream_id, stream)
        return Received(piece.stream_id, piece.data, piece.finished)

    def _control(self, frame: ControlFrame) -> Event | None:
        try:
            return self._dispatch(frame)
        except struct.error as error:
            raise SpdyError(
                f"frame of type {frame.kind} has an invalid length: {len(frame.payload)}"
            ) from error

    def _dispatch(self, frame: ControlFrame) -> Event | None:
        match frame.kind:
            case Kind.SYN_STREAM:
                return self._syn_stream(frame)
            case Kind.SYN_REPLY | Kind.HEADERS:
                return self._more_headers(frame)
            case Kind.RST_STREAM:
                return self._rst_stream(frame)
            case Kind.PING:
                self._ping(frame)
            case Kind.GOAWAY:
                return GoneAway()
            case Kind.WINDOW_UPDATE | Kind.SETTINGS:
                pass  # flow control is not used, see the package's docstring
            case _:
                raise SpdyError(f"frame of unknown type {frame.kind}")
        return None

    def _syn_stream(self, frame: ControlFrame) -> Event | None:
        stream_id = _TWO_NUMBERS.unpack_from(frame.payload)[0] & STREAM_BITS
        headers = self._headers_in.read(frame.payload[10:])
        if stream_id % 2 == 0 or stream_id <= self._last_id:
            raise SpdyError(f"stream {stream_id} was opened after stream {self._last_id}")
        self._last_id = stream_id
        if len(self._streams) >= self._most_streams:
            self._reject(stream_id, _REFUSED)
            return None
        finished = bool(frame.flags & FIN)
        stream = _Stream(receives=not finished, sends=not frame.flags & UNIDIRECTIONAL)
        self._streams[stream_id] = stream
        self._forget_ended(stream_id, stream)
        return Opened(stream_id, headers, finished)

    def _more_headers(self, frame: ControlFrame) -> Event | None:
        """Process further headers, which the decompressor needs and which can end a stream."""
        stream_id = _NUMBER.unpack_from(frame.payload)[0] & STREAM_BITS
        self._headers_in.read(frame.payload[4:])
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_was_opened(stream_id)
            return None
        if frame.kind == Kind.SYN_REPLY:  # to a stream that we did not open
            del self._streams[stream_id]
            self._reject(stream_id, _PROTOCOL_ERROR)
            return WasReset(stream_id)
        if not frame.flags & FIN or not stream.receives:
            return None
        self._stop_receiving(stream_id, stream)
        return Received(stream_id, b"", finished=True)

    def _rst_stream(self, frame: ControlFrame) -> Event | None:
        stream_id = _TWO_NUMBERS.unpack(frame.payload)[0] & STREAM_BITS
        if self._streams.pop(stream_id, None) is None:
            self._check_was_opened(stream_id)
            return None
        return WasReset(stream_id)

    def _ping(self, frame: ControlFrame) -> None:
        (number,) = _NUMBER.unpack(frame.payload)
        if number % 2:  # a ping of the client; even numbers answer ours
            self._send(Kind.PING, frame.payload)

    def _stop_receiving(self, stream_id: int, stream: _Stream) -> None:
        stream.receives = False
        self._forget_ended(stream_id, stream)

    def _forget_ended(self, stream_id: int, stream: _Stream) -> None:
        if not stream.receives and not stream.sends:
            del self._streams[stream_id]

    def _check_was_opened(self, stream_id: int) -> None:
        if stream_id % 2 == 0 or stream_id > self._last_id:
            raise SpdyError(f"frame for stream {stream_id}, which was never opened")

    def _reject(self, stream_id: int, status: int) -> None:
        self._send(Kind.RST_STREAM, _TWO_NUMBERS.pack(stream_id, status))

    def _send(self, kind: Kind, payload: bytes) -> None:
        self._output += control_frame(kind, payload)
