"""Helpers that read archives without unpacking them."""

import pytest
from layer_archives import END

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS
from noderuntime.node.layers.tar.reader import Archive


def read(blob, limits=DEFAULT_LIMITS, block=1 << 18):
    """Return all entries with their contents. The archive is read in blocks of the given size."""
    stream = Stream(blob[at : at + block] for at in range(0, len(blob), block))
    found = []
    for item in Archive(stream, limits):
        found.append((item, stream.take(item.size) if item.kind == b"0" else b""))
    return found


def read_one(*parts, **options):
    ((item, content),) = read(b"".join(parts) + END, **options)
    return item, content


def refused_to_read(*parts, match, limits=DEFAULT_LIMITS, error=InvalidArgument):
    with pytest.raises(error, match=match) as caught:
        read(b"".join(parts), limits)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
