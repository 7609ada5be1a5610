"""Decompresses a stream to blocks of the archive, one block at a time.

The first bytes of the stream determine its format, not the media type: tools such as ``docker save``
label uncompressed archives as gzip, and all runtimes detect the format. Consecutive gzip members or
zstd frames are one stream (pigz, eStargz, zstd:chunked). Other data after the last one is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, cast

from noderuntime.core.errors import InvalidArgument

BLOCK = 1 << 18
"""Bytes of a block. It fits the processor's cache, so that hashing and writing find it there."""

_WINDOW_LOG = 27  # 128 MiB: zstd's own limit, which `zstd --ultra -22` uses
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5f: a skippable zstd frame, which has no content
_ARCHIVES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
"""Layers that may not be distributed are pulled as all others; their ``urls`` are not used."""


class _Decoder(Protocol):
    """A decoder of one gzip member or zstd frame (isal, zstd)."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def check_media_type(media_type: str) -> None:
    """Raise InvalidArgument for a media type that is encrypted or not a layer's."""
    if "encrypted" in media_type:
        raise InvalidArgument(f"layers of type {media_type!r} are encrypted and are not supported")
    base = media_type.partition("+")[0].removesuffix(".gzip").removesuffix(".zstd")
    if base not in _ARCHIVES:
        raise InvalidArgument(f"{media_type!r} is not the media type of an image layer")


def decompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of a gzip, zstd or uncompressed stream. InvalidArgument if it is damaged."""
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= 4:
            break
    if start.startswith(_GZIP):
        return _decode("gzip", _gzip_decoder(), start, chunks)
    if start.startswith(_ZSTD) or (start[1:4] == _SKIPPABLE and start[0] & 0xF0 == 0x50):
        return _decode("zstd", _zstd_decoder(), start, chunks)
    return _joined(start, chunks)


def _joined(start: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if start:
        yield start
    yield from chunks


def _decode(
    name: str, decoder: tuple[Callable[[], _Decoder], type[Exception]], start: bytes, chunks: Iterator[bytes]
) -> Iterator[bytes]:
    new, error_type = decoder
    member = new()
    try:
        for chunk in _joined(start, chunks):
            data = chunk
            while data or not (member.needs_input or member.eof):
                if member.eof:
                    member = new()
                block = member.decompress(data, BLOCK)
                data = member.unused_data if member.eof else b""
                if block:
                    yield block
    except error_type as error:
        raise InvalidArgument(f"the layer is not a valid {name} stream: {error}") from error
    if not member.eof:
        raise InvalidArgument(f"the layer's {name} stream is truncated")


def _gzip_decoder() -> tuple[Callable[[], _Decoder], type[Exception]]:
    from isal import igzip_lib  # noqa: PLC0415 - loaded only by processes that need it

    error = cast("type[Exception]", igzip_lib.error)  # the stubs declare an instance
    return lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), error


def _zstd_decoder() -> tuple[Callable[[], _Decoder], type[Exception]]:
    from noderuntime.node.layers.zstandard import zstd  # noqa: PLC0415 - as above

    options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG}
    return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError
