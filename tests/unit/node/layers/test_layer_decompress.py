"""Decompression: formats, chunk sizes, damaged streams, media types."""

import gzip

import pytest
from layer_archives import TAR

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.layers.decompress import BLOCK, check_media_type, decompressed
from noderuntime.node.layers.zstandard import zstd

CONTENT = b"".join(b"%d," % number for number in range(200_000))
HALF = len(CONTENT) // 2
SKIPPABLE = b"\x5e\x2a\x4d\x18\x04\0\0\0note"

GZIP = gzip.compress(CONTENT)

STREAMS = {
    "gzip": GZIP,
    "gzip with a name": b"\x1f\x8b\x08\x08"
    + gzip.compress(CONTENT)[4:10]
    + b"a.tar\0"
    + gzip.compress(CONTENT)[10:],
    "gzip in members": gzip.compress(CONTENT[:HALF]) + gzip.compress(CONTENT[HALF:]),
    "gzip with empty members": gzip.compress(b"") + gzip.compress(CONTENT) + gzip.compress(b""),
    "zstd": zstd.compress(CONTENT),
    "zstd with a sum": zstd.compress(CONTENT, options={zstd.CompressionParameter.checksum_flag: 1}),
    "zstd in frames": zstd.compress(CONTENT[:HALF]) + zstd.compress(CONTENT[HALF:]),
    "zstd with notes": SKIPPABLE + zstd.compress(CONTENT) + SKIPPABLE,
    "zstd of the largest window": zstd.compress(CONTENT, options={zstd.CompressionParameter.window_log: 27}),
    "plain": CONTENT,
}


def in_chunks(stream, size):
    return (stream[at : at + size] for at in range(0, len(stream), size))


@pytest.mark.parametrize("size", [1 << 30, 70_000, 17])
@pytest.mark.parametrize("name", STREAMS)
def test_decompressed_yields_the_content(name, size):
    blocks = list(decompressed(in_chunks(STREAMS[name], size)))
    assert b"".join(blocks) == CONTENT
    if name != "plain":
        assert max(map(len, blocks)) <= BLOCK


@pytest.mark.parametrize("name", ["gzip with a name", "zstd with notes", "plain"])
def test_decompressed_accepts_single_bytes(name):
    stream = STREAMS[name][:3000]
    with_small_chunks = decompressed(in_chunks(stream, 1))
    at_once = decompressed(in_chunks(stream, 3000))
    assert until_error(with_small_chunks) == until_error(at_once)


def until_error(blocks):
    found = b""
    try:
        for block in blocks:
            found += block
    except InvalidArgument:
        return found, "damaged"
    return found, "whole"


@pytest.mark.parametrize("stream", [b"", b"a", b"ab", b"\x1f"])
def test_decompressed_passes_very_short_streams_on(stream):
    assert b"".join(decompressed(in_chunks(stream, 1))) == stream


@pytest.mark.parametrize("name", sorted(STREAMS.keys() - {"plain"}))
def test_truncated_stream_is_refused(name):
    stream = STREAMS[name]
    end = stream.rindex(SKIPPABLE) if name == "zstd with notes" else len(stream)
    for cut in (end - 1, end - 5, end // 3):
        with pytest.raises(InvalidArgument, match="is truncated"):
            list(decompressed(in_chunks(stream[:cut], 70_000)))


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["gzip", "zstd with a sum"])
def test_damaged_stream_is_refused(name, position):
    stream = bytearray(STREAMS[name])
    stream[int(len(stream) * position)] ^= 0x55
    with pytest.raises(InvalidArgument, match=f"not a valid {name[:4]} stream|is truncated"):
        list(decompressed(iter([bytes(stream)])))


def test_gzip_checksum_and_length_are_verified():
    for at in (-8, -1):
        stream = bytearray(STREAMS["gzip"])
        stream[at] ^= 1
        with pytest.raises(InvalidArgument, match="not a valid gzip stream"):
            list(decompressed(iter([bytes(stream)])))


def test_zstd_checksum_is_verified():
    stream = bytearray(STREAMS["zstd with a sum"])
    stream[-1] ^= 1
    with pytest.raises(InvalidArgument, match="not a valid zstd stream"):
        list(decompressed(iter([bytes(stream)])))


@pytest.mark.parametrize("name", ["gzip", "zstd"])
@pytest.mark.parametrize("rest", [b"x" * 600, bytes(600), b"\x1f\x8b\x07" + bytes(30)])
def test_data_after_the_stream_is_refused(name, rest):
    with pytest.raises(InvalidArgument, match=f"{name} stream"):
        list(decompressed(iter([STREAMS[name] + rest])))


def test_zstd_window_beyond_the_limit_is_refused():
    options = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    stream = compressor.compress(CONTENT) + compressor.flush()
    with pytest.raises(InvalidArgument, match="not a valid zstd stream"):
        list(decompressed(iter([stream])))


@pytest.mark.parametrize(
    "prefix",
    [
        TAR,
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ],
)
@pytest.mark.parametrize("suffix", ["", "+gzip", ".gzip", "+zstd", ".zstd"])
def test_media_type_of_a_layer_is_accepted(prefix, suffix):
    check_media_type(prefix + suffix)


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/vnd.oci.image.layer.nondistributable.v1", "not the media type of an image layer"),
        (f"{TAR}+gzip+encrypted", "encrypted"),
        ("application/vnd.oci.image.config.v1+json", "not the media type of an image layer"),
        ("text/html", "not the media type of an image layer"),
        ("", "not the media type of an image layer"),
    ],
)
def test_other_media_type_is_refused(media_type, expected):
    with pytest.raises(InvalidArgument, match=expected):
        check_media_type(media_type)
