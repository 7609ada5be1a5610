"""A SPDY/3.1 client for tests, without I/O, that can also send invalid frames.

It encodes and decodes frames itself, independently of the code under test.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from noderuntime.edge.streaming.spdy.dictionary import DICTIONARY

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9


def control(kind: int, payload: bytes, flags: int = 0, *, version: int = 3) -> bytes:
    """Return a control frame."""
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(payload)) + payload


def data(stream_id: int, content: bytes, *, fin: bool = False) -> bytes:
    """Return a data frame."""
    return struct.pack(">II", stream_id, fin << 24 | len(content)) + content


def block(headers: dict[str, str]) -> bytes:
    """Return an uncompressed header block."""
    texts = [text.encode() for pair in headers.items() for text in pair]
    return struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(t)) + t for t in texts)


@dataclass(frozen=True)
class Frame:
    """A frame from the server; a data frame has kind 0."""

    kind: int
    stream_id: int
    fin: bool
    content: bytes


@dataclass
class SpdyClient:
    """Encodes the frames of a client and decodes those of a server."""

    deflate: zlib._Compress = field(default_factory=lambda: zlib.compressobj(zdict=DICTIONARY))
    inflate: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(zdict=DICTIONARY))
    next_id: int = 1
    buffer: bytes = b""

    def compressed(self, raw: bytes) -> bytes:
        """Return a header block, compressed with this client's zlib stream."""
        return self.deflate.compress(raw) + self.deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, headers: dict[str, str], *, flags: int = 0, stream_id: int = 0) -> bytes:
        """Return the frame that opens the next stream, or the one with that number."""
        if not stream_id:
            stream_id, self.next_id = self.next_id, self.next_id + 2
        payload = struct.pack(">IIH", stream_id, 0, 0) + self.compressed(block(headers))
        return control(SYN_STREAM, payload, flags)

    def frames(self, received: bytes) -> Iterator[Frame]:
        """Yield the complete frames in the received data."""
        self.buffer += received
        while len(self.buffer) >= 8:
            first, second = struct.unpack(">II", self.buffer[:8])
            length = second & 0xFFFFFF
            if len(self.buffer) < 8 + length:
                return
            content, self.buffer = self.buffer[8 : 8 + length], self.buffer[8 + length :]
            if not first >> 31:
                yield Frame(0, first, bool(second >> 24 & 1), content)
                continue
            (stream_id,) = struct.unpack(">I", content[:4])
            if first & 0xFFFF == SYN_REPLY:
                content = self.inflate.decompress(content[4:])
            yield Frame(first & 0xFFFF, stream_id, bool(second >> 24 & 1), content)
