from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakeapi import FakeApi

from noderuntime_operator.kube import Kube


@pytest.fixture
async def kube(api: FakeApi) -> AsyncIterator[Kube]:
    """A client of the test module's API server."""
    async with api.serving() as kube:
        yield kube
