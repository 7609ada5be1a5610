"""A streaming server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from noderuntime.config import StreamingConfig
from noderuntime.edge.streaming.server import StreamingServer


@pytest.fixture
async def server() -> AsyncIterator[StreamingServer]:
    """A server that has no session left over when its test ends."""
    served = StreamingServer(StreamingConfig())
    await served.start()
    yield served
    await served.stop()
    assert served._serving == set()
    assert served._strangers == set()
