"""Notifies systemd of the service's state (sd_notify(3)). Does nothing without ``NOTIFY_SOCKET``."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from noderuntime.core import log

_log = log.get(__name__)

# Removed from the environment before any program starts: ``runc start`` waits for a container
# to notify the socket that it inherits.
_ADDRESS = os.environ.pop("NOTIFY_SOCKET", "")


# In seconds. Not inherited either, because the watchdog is for this process.
_WATCHDOG = int(os.environ.pop("WATCHDOG_USEC", "0") or 0) / 1e6
_WATCHDOG_PID = os.environ.pop("WATCHDOG_PID", "")
_EXTEND_SECONDS = 10.0

for _name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):  # runc passes these descriptors to containers
    os.environ.pop(_name, None)


def watchdog_seconds() -> float:
    """Return the interval in which the service manager expects a heartbeat, in seconds. 0 disables it."""
    return _WATCHDOG if _WATCHDOG_PID in ("", str(os.getpid())) else 0.0


def notify(state: str) -> None:
    """Send lines such as ``READY=1`` or ``STATUS=…`` to the service manager. Logs a failure."""
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
    """Extend the start timeout to three times ``seconds``, every ``seconds``, until cancelled."""
    while True:
        send(f"EXTEND_TIMEOUT_USEC={int(3e6 * seconds)}")
        await asyncio.sleep(seconds)
