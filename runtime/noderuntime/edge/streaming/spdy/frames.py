"""Parses and builds SPDY/3.1 frames (draft 3.1, section 2.2).

A data frame is passed on in pieces as it arrives, so its length, up to 16 MiB, needs no memory. A control
frame is buffered until it is complete, and is limited to 64 KiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

VERSION = 3
FIN = 0x01
UNIDIRECTIONAL = 0x02
LONGEST_CONTROL = 1 << 16
"""Limit in bytes of a control frame's payload. The draft requires support for at least 8 KiB."""

STREAM_BITS = 0x7FFF_FFFF
_CONTROL_BIT = 0x8000_0000
_HEADER = struct.Struct(">II")
_LENGTH_BITS = 0x00FF_FFFF


class SpdyError(ConnectionError):
    """The peer violated the protocol. No further data can be interpreted."""


class Kind(IntEnum):
    """Types of control frames."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """One complete control frame."""

    kind: int
    flags: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DataPiece:
    """A part of a data frame; ``finished`` in the last part of a stream's last frame."""

    stream_id: int
    data: bytes
    finished: bool


class FrameReader:
    """A parser that accepts bytes as they arrive and returns frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._stream_id = 0
        self._finishes = False
        self._missing = 0
        """Bytes of the current data frame that have not arrived."""

    def feed(self, data: bytes) -> Iterator[ControlFrame | DataPiece]:
        """Yield the frames that are complete. SpdyError if the bytes are not a valid frame."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> ControlFrame | DataPiece | None:
        if self._missing:
            return self._piece() if self._buffer else None
        if len(self._buffer) < _HEADER.size:
            return None
        first, second = _HEADER.unpack_from(self._buffer)
        length = second & _LENGTH_BITS
        if first & _CONTROL_BIT:
            return self._control(first, second >> 24, length)
        if first == 0:
            raise SpdyError("data frame for stream 0")
        del self._buffer[: _HEADER.size]
        self._stream_id, self._finishes, self._missing = first, bool(second >> 24 & FIN), length
        return self._piece() if self._buffer or not length else None

    def _control(self, first: int, flags: int, length: int) -> ControlFrame | None:
        if first >> 16 & 0x7FFF != VERSION:
            raise SpdyError(f"SPDY version {first >> 16 & 0x7FFF}, expected {VERSION}")
        if length > LONGEST_CONTROL:
            raise SpdyError(f"control frame of {length} bytes, the limit is {LONGEST_CONTROL}")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return ControlFrame(first & 0xFFFF, flags, payload)

    def _piece(self) -> DataPiece:
        data = bytes(self._buffer[: self._missing])
        del self._buffer[: len(data)]
        self._missing -= len(data)
        return DataPiece(self._stream_id, data, finished=self._finishes and not self._missing)


def control_frame(kind: Kind, payload: bytes, flags: int = 0) -> bytes:
    """Return an encoded control frame."""
    return _HEADER.pack(_CONTROL_BIT | VERSION << 16 | kind, flags << 24 | len(payload)) + payload


def data_frame(stream_id: int, data: bytes, *, fin: bool = False) -> bytes:
    """Return an encoded data frame of at most 16 MiB - 1."""
    return _HEADER.pack(stream_id, (FIN if fin else 0) << 24 | len(data)) + data
