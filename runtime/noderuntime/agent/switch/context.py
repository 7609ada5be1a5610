"""The context of the switch's verbs, the walk through a transaction's steps, and the lock between verbs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from noderuntime.agent.layout import Layout
from noderuntime.agent.systemd import Systemd
from noderuntime.core.errors import FailedPrecondition
from noderuntime.node.host.base import Host

_LOCK_TIMEOUT = 600.0

S = TypeVar("S")
Step = Callable[["Context", S], Awaitable[None]]


def _no_observer(name: str) -> None:
    """Do nothing before a step."""


@dataclass(frozen=True, slots=True)
class Context:
    """The node that a verb of the switch works on."""

    layout: Layout
    host: Host
    systemd: Systemd
    second: float = 1.0
    """Length of a second in deadlines; tests use a shorter one."""
    pause: float = 1.0
    """Seconds between two checks in wait loops; tests use a shorter one."""
    on_step: Callable[[str], None] = _no_observer
    """Called with the name of each step before it begins; tests interrupt a transaction here."""


async def walk(context: Context, steps: Iterable[Step[S]], state: S) -> None:
    """Take the steps of a transaction, one after the other."""
    for step in steps:
        context.on_step(step.__name__)
        await step(context, state)


@contextlib.asynccontextmanager
async def locked(context: Context) -> AsyncIterator[None]:
    """Hold the lock, which the kernel releases if the process dies. FailedPrecondition after ten minutes."""
    path = context.layout.lock
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _acquire(descriptor, path)
        yield
    finally:
        os.close(descriptor)


async def _acquire(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FailedPrecondition(f"another switch has held {path} for ten minutes") from None
            await asyncio.sleep(0.5)
