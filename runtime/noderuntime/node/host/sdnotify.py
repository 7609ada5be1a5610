"""Telling systemd how the service stands (sd_notify(3)); silent where nobody asked."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from noderuntime.core import log

_log = log.get(__name__)

# Taken out of the environment before anything is spawned: ``runc start`` would wait for
# the container to report to the socket it inherits.
_ADDRESS = os.environ.pop("NOTIFY_SOCKET", "")


# Seconds, not to be inherited either: the watchdog is that of this process.
_WATCHDOG = int(os.environ.pop("WATCHDOG_USEC", "0") or 0) / 1e6
_WATCHDOG_PID = os.environ.pop("WATCHDOG_PID", "")
_EXTEND_SECONDS = 10.0

for _name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):  # runc would pass such descriptors on
    os.environ.pop(_name, None)


def watchdog_seconds() -> float:
    """Return within how many seconds the service manager wants a sign of life; 0 when it wants none."""
    return _WATCHDOG if _WATCHDOG_PID in ("", str(os.getpid())) else 0.0


def notify(state: str) -> None:
    """Send lines such as ``READY=1`` or ``STATUS=…`` to the service manager; if that fails, log it."""
    if not _ADDRESS:
        return
    address = "\0" + _ADDRESS[1:] if _ADDRESS.startswith("@") else _ADDRESS
    flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        with socket.socket(socket.AF_UNIX, flags) as channel:
            channel.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("service manager was not notified", state=state, error=error)


async def extend_start(seconds: float = _EXTEND_SECONDS, send: Callable[[str], None] = notify) -> None:
    """Ask the service manager every so many seconds for three times as many to start, until cancelled."""
    while True:
        send(f"EXTEND_TIMEOUT_USEC={int(3e6 * seconds)}")
        await asyncio.sleep(seconds)
