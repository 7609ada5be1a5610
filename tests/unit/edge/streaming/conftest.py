"""Fixtures: a streaming server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from noderuntime.config import StreamingConfig
from noderuntime.edge.streaming.server import StreamingServer


@pytest.fixture
async def server() -> AsyncIterator[StreamingServer]:
    """Yield a server, and check that it has no session left when the test ends."""
    served = StreamingServer(StreamingConfig())
    await served.start()
    yield served
    await served.stop()
    assert served._serving == set()
    assert served._unauthenticated == set()
