"""Fixtures: a store with a registry and unpackers in memory."""

import pytest
from pulling import Site


@pytest.fixture
async def site(tmp_path):
    site = await Site(tmp_path / "images").open()
    yield site
    await site.backend.close()
