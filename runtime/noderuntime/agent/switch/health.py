"""Health checks of the kubelet, and whether it is connected to noderuntime."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from noderuntime.agent.layout import Layout
from noderuntime.agent.switch.context import Context
from noderuntime.core.blocking import FILES
from noderuntime.node.host import peers

_REQUIRED_SUCCESSES = 3
"""Consecutive successful checks, a second apart, of the same kubelet process."""


async def wait_until_healthy(
    context: Context, unit: str, port: int, *, on_noderuntime: bool, seconds: float
) -> str | None:
    """Return None once the kubelet is healthy and connected as expected (see :func:`check`).

    If it is not within this many seconds, return the last problem as one line.
    """
    deadline = time.monotonic() + seconds * context.second
    last_pid, successes, problem = 0, 0, "the kubelet was not checked"
    while time.monotonic() < deadline:
        pid = await context.systemd.main_pid(unit)
        found = await check(context.layout, pid, port, on_noderuntime=on_noderuntime)
        successes = successes + 1 if found is None and pid == last_pid else int(found is None)
        last_pid, problem = pid, found or "the kubelet did not stay up"
        if successes >= _REQUIRED_SUCCESSES:
            return None
        await asyncio.sleep(context.pause)
    return problem


async def check(layout: Layout, pid: int, port: int, *, on_noderuntime: bool) -> str | None:
    """Return None if the kubelet is healthy and its connection is as expected, else the problem."""
    if not pid:
        return "the kubelet is not running"
    if port and not await healthz(port):
        return f"the kubelet does not respond at 127.0.0.1:{port}/healthz"
    connected = await FILES.run(is_connected, layout, pid)
    if connected is not None and connected != on_noderuntime:
        return f"the kubelet is {'not' if on_noderuntime else 'still'} connected to noderuntime"
    return None


async def healthz(port: int) -> bool:
    """Return whether the kubelet's health endpoint returns status 200 within two seconds."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    return False


def is_connected(layout: Layout, pid: int) -> bool | None:
    """Return whether the process is connected to the daemon's socket. None if the kernel cannot tell."""
    clients = peers.clients_of(str(layout.socket))
    if clients is None:
        return None
    directory = layout.proc / str(pid) / "fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                target = os.readlink(directory / name)
                if target.startswith("socket:[") and int(target[8:-1]) in clients:
                    return True
    return False
