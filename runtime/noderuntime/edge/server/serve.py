"""The gRPC server: it listens, reports readiness to systemd, and stops gracefully."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import grpc

from noderuntime.core import log
from noderuntime.edge.server.dispatch import Dispatcher
from noderuntime.edge.server.listen import SERVER_OPTIONS, bind
from noderuntime.node.host.sdnotify import notify

_log = log.get(__name__)

GRACE_SECONDS = 5.0
"""How long calls in progress may continue after SIGTERM, while the socket still serves.

The kubelet repeats those that are cut off then. Streams are cut off at the end too: they may never end.
"""


async def serve(dispatcher: Dispatcher, socket: Path, stop: asyncio.Event) -> None:
    """Serve CRI on the socket until ``stop`` is set and the calls in progress have ended, or too long.

    A node without a socket has no runtime, so the socket is closed last and everything is cut off then.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers([dispatcher])
    bind(server, socket)
    await server.start()
    _log.info("serving", socket=socket)
    notify("READY=1")
    try:
        await stop.wait()
        notify("STOPPING=1")
        await dispatcher.drain(GRACE_SECONDS)
    finally:
        await server.stop(None)
        _log.info("stopped", socket=socket)


def on_signals(*signals: signal.Signals) -> asyncio.Event:
    """Return an event that is set when one of the signals arrives."""
    event = asyncio.Event()
    for signo in signals:
        asyncio.get_running_loop().add_signal_handler(signo, event.set)
    return event
