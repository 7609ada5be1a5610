"""What every verb of the switch works with, and the lock that lets one of them work at a time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from noderuntime.agent.layout import Layout
from noderuntime.agent.systemd import Systemd
from noderuntime.core.errors import FailedPrecondition
from noderuntime.node.host.base import Host

_PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Context:
    """The node as the switch sees it."""

    layout: Layout
    host: Host
    systemd: Systemd
    second: float = 1.0
    """How long a second takes; tests have shorter ones."""


@contextlib.asynccontextmanager
async def locked(context: Context) -> AsyncIterator[None]:
    """Hold the lock; the kernel gives it back when the holder dies. FailedPrecondition after ten minutes."""
    path = context.layout.lock
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _acquire(descriptor)
        yield
    finally:
        os.close(descriptor)


async def _acquire(descriptor: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FailedPrecondition("another switch has held the lock for ten minutes") from None
            await asyncio.sleep(0.5)
