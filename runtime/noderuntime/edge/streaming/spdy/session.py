"""The server's side of a SPDY/3.1 session: frames become events, answers become bytes to send.

A stream is opened by the client, and ends when both sides have finished it or one has reset it.
What a client does to a stream that has ended crossed our own message on the way and is passed over;
what it does to one that never was breaks the session.
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
"""Reasons in RST_STREAM."""

_PING = 2
"""Number of all our pings; a server's are even."""

_NUMBER, _TWO_NUMBERS = struct.Struct(">I"), struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Opened:
    """The client opened a stream; it waits for :meth:`ServerSession.accept`."""

    stream_id: int
    headers: dict[str, str]
    finished: bool
    """The client will send nothing on it."""


@dataclass(frozen=True, slots=True)
class Received:
    """Data of a stream."""

    stream_id: int
    data: bytes
    finished: bool
    """The client has sent all."""


@dataclass(frozen=True, slots=True)
class WasReset:
    """The client wants nothing more of a stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The client will open no more streams."""


Event = Opened | Received | WasReset | GoneAway


@dataclass(slots=True)
class _Stream:
    """Which directions are still open."""

    receives: bool
    sends: bool


class ServerSession:
    """One session. ``most_streams`` bounds how many the client may have open at once."""

    def __init__(self, most_streams: int) -> None:
        self._most_streams = most_streams
        self._frames = FrameReader()
        self._headers_in, self._headers_out = HeaderReader(), HeaderWriter()
        self._streams: dict[int, _Stream] = {}
        self._last_id = 0
        self._output = bytearray()

    def receive(self, data: bytes) -> Iterator[Event]:
        """Yield what the bytes say; answers are in :meth:`take_output`. SpdyError ends the session."""
        for frame in self._frames.feed(data):
            event = self._data(frame) if isinstance(frame, DataPiece) else self._control(frame)
            if event is not None:
                yield event

    def take_output(self) -> bytes:
        """Return what has to be sent now."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def accept(self, stream_id: int) -> None:
        """Answer that a stream is welcome."""
        if stream_id in self._streams:
            self._send(Kind.SYN_REPLY, _NUMBER.pack(stream_id) + self._headers_out.empty())

    def send(self, stream_id: int, data: bytes, *, finish: bool = False) -> None:
        """Send data (less than 16 MiB); nothing happens on a stream whose sending side has ended."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.sends:
            return
        self._output += data_frame(stream_id, data, fin=finish)
        if finish:
            stream.sends = False
            self._forget_ended(stream_id, stream)

    def reset(self, stream_id: int) -> None:
        """End a stream at once in both directions; one that has ended stays as it is."""
        if self._streams.pop(stream_id, None) is not None:
            self._reject(stream_id, _CANCEL)

    def ping(self) -> None:
        """Ask for an answer, which is not waited for: it shows whether the connection still carries."""
        self._send(Kind.PING, _NUMBER.pack(_PING))

    def go_away(self) -> None:
        """Say that the session ends."""
        self._send(Kind.GOAWAY, _TWO_NUMBERS.pack(self._last_id, 0))

    def _data(self, piece: DataPiece) -> Event | None:
        stream = self._streams.get(piece.stream_id)
        if stream is None:
            self._must_have_been(piece.stream_id)
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
            raise SpdyError(f"a frame of type {frame.kind} with {len(frame.payload)} bytes") from error

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
                pass  # about windows and their sizes, see the package's docstring
            case _:
                raise SpdyError(f"a frame of the unknown type {frame.kind}")
        return None

    def _syn_stream(self, frame: ControlFrame) -> Event | None:
        stream_id = _TWO_NUMBERS.unpack_from(frame.payload)[0] & STREAM_BITS
        headers = self._headers_in.read(frame.payload[10:])
        if stream_id % 2 == 0 or stream_id <= self._last_id:
            raise SpdyError(f"stream {stream_id} opened after {self._last_id}")
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
        """Nobody here looks at further headers, but the compression needs them, and they may end a stream."""
        stream_id = _NUMBER.unpack_from(frame.payload)[0] & STREAM_BITS
        self._headers_in.read(frame.payload[4:])
        stream = self._streams.get(stream_id)
        if stream is None:
            self._must_have_been(stream_id)
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
            self._must_have_been(stream_id)
            return None
        return WasReset(stream_id)

    def _ping(self, frame: ControlFrame) -> None:
        (number,) = _NUMBER.unpack(frame.payload)
        if number % 2:  # the client's own; even ones are answers to ours
            self._send(Kind.PING, frame.payload)

    def _stop_receiving(self, stream_id: int, stream: _Stream) -> None:
        stream.receives = False
        self._forget_ended(stream_id, stream)

    def _forget_ended(self, stream_id: int, stream: _Stream) -> None:
        if not stream.receives and not stream.sends:
            del self._streams[stream_id]

    def _must_have_been(self, stream_id: int) -> None:
        if stream_id % 2 == 0 or stream_id > self._last_id:
            raise SpdyError(f"a frame for stream {stream_id}, which was never opened")

    def _reject(self, stream_id: int, why: int) -> None:
        self._send(Kind.RST_STREAM, _TWO_NUMBERS.pack(stream_id, why))

    def _send(self, kind: Kind, payload: bytes) -> None:
        self._output += control_frame(kind, payload)
