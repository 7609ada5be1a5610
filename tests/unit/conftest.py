"""Fixtures of all unit tests: the fake node of pods, containers and recovery, and the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fakes import Node


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    """Undo the gc.freeze of commands that a test ran in its own process: Hypothesis looks for referrers."""
    yield
    gc.unfreeze()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    yield node
    await node.parts.retries.close()
    await node.parts.work.drain(5)
    await node.parts.ledger.close()
