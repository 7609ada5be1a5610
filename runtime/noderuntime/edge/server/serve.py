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
"""How long calls in progress may continue after SIGTERM. The kubelet repeats those that are cut off."""


async def serve(dispatcher: Dispatcher, socket: Path, stop: asyncio.Event) -> None:
    """Serve CRI on the socket until ``stop`` is set. Returns when the last call has ended."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers([dispatcher])
    bind(server, socket)
    await server.start()
    _log.info("serving", socket=socket)
    notify("READY=1")
    try:
        await stop.wait()
    finally:
        notify("STOPPING=1")
        await server.stop(GRACE_SECONDS)
        _log.info("stopped", socket=socket)


def on_signals(*signals: signal.Signals) -> asyncio.Event:
    """Return an event that is set when one of the signals arrives."""
    event = asyncio.Event()
    for signo in signals:
        asyncio.get_running_loop().add_signal_handler(signo, event.set)
    return event
