"""The description of a process that does not end."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.process import identify, stuck

_VFORK = """
import os, sys, threading
actions = [(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)]
start = lambda: os.posix_spawn("/bin/true", ["true"], {}, file_actions=actions)
threading.Thread(target=start).start() if sys.argv[2] == "thread" else start()
"""
"""A thread that calls vfork is in state D until the child has opened its files."""


@pytest.fixture(params=["main", "thread"])
def sleeper(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ProcessRef]:
    """A process of which one thread is in uninterruptible sleep."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-c", _VFORK, str(fifo), request.param]) as child:
        process = identify(child.pid)
        assert process is not None
        yield process
        os.close(os.open(fifo, os.O_WRONLY))  # unblocks it


async def test_stuck_names_state_d_and_the_kernels_function(sleeper: ProcessRef) -> None:
    expected = rf"process {sleeper.pid} is in state D, in [a-z]\w+"
    async with asyncio.timeout(20):
        while re.fullmatch(expected, stuck(sleeper)) is None:  # until it sleeps
            await asyncio.sleep(0.01)


def test_stuck_of_a_process_that_has_ended() -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    assert stuck(ProcessRef(child.pid, 1)) == f"process {child.pid} is ending"
