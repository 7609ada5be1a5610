from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from failpoints import ONE, TWO
from fakenode import FakeNode

from noderuntime.agent.switch.run import apply

_MEMORY = Path("/dev/shm")
"""A filesystem without a disk: each test syncs some fifty files."""


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    # Not pytest's tmp_path: the path of a unix socket has 107 characters at most.
    root = Path(tempfile.mkdtemp(prefix="nr-agent-", dir=_MEMORY if _MEMORY.is_dir() else None))
    found = FakeNode(root)
    try:
        yield found
    finally:
        await found.host.close()
        shutil.rmtree(root)


@pytest.fixture
async def served(node: FakeNode) -> FakeNode:
    """A node whose kubelet uses version one, with a pod, and version two staged."""
    await node.boot("FlagsFile")
    node.install(digest=ONE)
    await apply(node.context)
    pod = node.host.daemon.add("web")
    process = node.layout.proc / "900"
    process.mkdir()
    (process / "cmdline").write_bytes(b"conmon\0-c\0" + pod.encode() + b"\0")
    node.install(digest=TWO)
    return node
