"""Is the kubelet well, and whom does it talk to?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from noderuntime.agent.layout import Layout
from noderuntime.agent.switch.context import Context
from noderuntime.node.host import peers

_STEADY = 3
"""So many looks in a row, a second apart, at one and the same process have to be good."""


async def wait_until_well(
    context: Context, unit: str, port: int, *, ours: bool, seconds: float
) -> str | None:
    """Return None once the kubelet is well and talks to us (or no longer does).

    If it is not within so many seconds, return what was wrong at last.
    """
    deadline = time.monotonic() + seconds * context.second
    steady_pid, steady, trouble = 0, 0, "it was not looked at"
    while time.monotonic() < deadline:
        pid = await context.systemd.main_pid(unit)
        found = await look(context.layout, pid, port, ours=ours)
        steady = steady + 1 if found is None and pid == steady_pid else int(found is None)
        steady_pid, trouble = pid, found or "it did not stay up"
        if steady >= _STEADY:
            return None
        await asyncio.sleep(context.second)
    return trouble


async def look(layout: Layout, pid: int, port: int, *, ours: bool) -> str | None:
    """Return None if all is well now, else one line."""
    if not pid:
        return "the kubelet does not run"
    if port and not await healthz(port):
        return f"the kubelet does not answer on 127.0.0.1:{port}/healthz"
    talks = await asyncio.to_thread(talks_to_us, layout, pid)
    if talks is not None and talks != ours:
        return f"the kubelet {'does not talk' if ours else 'still talks'} to noderuntime"
    return None


async def healthz(port: int) -> bool:
    """Ask the kubelet's health endpoint; anything but 200 within two seconds is bad."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    return False


def talks_to_us(layout: Layout, pid: int) -> bool | None:
    """Tell whether the process holds a connection to our socket; None where the kernel cannot say."""
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
