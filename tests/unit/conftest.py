"""The fake node that tests of pods, containers and recovery run on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes import Node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    yield node
    await node.parts.work.drain(5)
    await node.parts.ledger.close()
