from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakenode import FakeNode


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    # Not pytest's tmp_path: the path of a unix socket has 107 characters at most.
    root = Path(tempfile.mkdtemp(prefix="nr-agent-"))
    found = FakeNode(root)
    try:
        yield found
    finally:
        await found.host.close()
        shutil.rmtree(root)
