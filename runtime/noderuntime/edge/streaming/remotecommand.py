"""Exec and attach: all versions of the subprotocol ``channel.k8s.io`` (k8s.io/cri-streaming).

A client gets a channel for each requested stream, and the channel ``error`` for the outcome:

    version   on the ``error`` channel                     a terminal's size
    1, 2      a message, if it failed                      cannot change
    3         a message, if it failed                      on the channel ``resize``
    4, 5      a metav1.Status, also with an exit code      on the channel ``resize``

Over SPDY the client opens the channels as streams, over WebSocket they have fixed numbers.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.core.sessions import Command, Streams
from noderuntime.edge.streaming.channel import Channel
from noderuntime.edge.streaming.spdylink import SpdyLink
from noderuntime.edge.streaming.websocket import WebSocket
from noderuntime.edge.streaming.wschannels import WebSocketChannels
from noderuntime.node.host.base import STDERR, STDOUT

_log = log.get(__name__)

SPDY_PROTOCOLS = {f"v{version}.channel.k8s.io": version for version in (4, 3, 2)} | {
    "channel.k8s.io": 1,
    "": 1,
}
"""Versions by the names that clients request. A client that requests none is older than the names."""
WEBSOCKET_PROTOCOLS = {
    "v5.channel.k8s.io": 5,
    "v4.channel.k8s.io": 4,
    "v4.base64.channel.k8s.io": 4,
    "channel.k8s.io": 1,
    "base64.channel.k8s.io": 1,
    "": 1,
}
MOST_STREAMS = 8
"""Five are needed."""

_CHANNELS = ("stdin", "stdout", "stderr", "error", "resize")
"""In the order of their numbers in a WebSocket."""
_CREATION_TIMEOUT = 30.0
"""Seconds that a client has to open its streams."""
_LARGEST_SIZE = 1 << 12
"""Characters of the JSON with a terminal's size."""
_OBJECT = re.compile(r"\{[^{}]*\}")
_WIDEST = (1 << 16) - 1


_FAILURES = {"exec": "error executing command in container", "attach": "error attaching to container"}


async def serve_spdy(link: SpdyLink, command: Command, protocol: str) -> None:
    """Serve a client that opens its channels as SPDY streams. ConnectionError if it does not open them."""
    version = SPDY_PROTOCOLS[protocol]
    await _serve(await _opened(link, command.streams, version), command, version)


async def serve_websocket(link: WebSocketChannels, command: Command, protocol: str) -> None:
    """Serve a client with numbered channels. An empty message tells it that it is connected."""
    streams, channels = command.streams, dict(zip(_CHANNELS, link.channels, strict=True))
    first = "stdout" if streams.stdout else "stderr" if streams.stderr else "error"
    await channels[first].write(b"")
    await _serve(channels, command, WEBSOCKET_PROTOCOLS[protocol])


def websocket_link(socket: WebSocket, command: Command, protocol: str) -> WebSocketChannels:
    """Return the channels of a WebSocket. Its client can send on ``resize`` and, if requested, ``stdin``."""
    names = {"resize", "stdin"} if command.streams.stdin else {"resize"}
    readable = {number for number, name in enumerate(_CHANNELS) if name in names}
    return WebSocketChannels(socket, protocol, len(_CHANNELS), readable)


async def _opened(link: SpdyLink, streams: Streams, version: int) -> dict[str, Channel]:
    """Wait for the streams that the client must open and return them by name."""
    wanted = {name for name in ("stdin", "stdout", "stderr") if getattr(streams, name)} | {"error"}
    if streams.tty and version >= 3:
        wanted.add("resize")
    found: dict[str, Channel] = {}
    try:
        async with asyncio.timeout(_CREATION_TIMEOUT):
            while not wanted <= found.keys():
                stream = await link.opened.get()
                name = stream.headers.get("streamtype", "")
                if name in found or name not in _CHANNELS:
                    await stream.reset()
                    continue
                await stream.accept()
                found[name] = stream
    except TimeoutError:
        missing = ", ".join(sorted(wanted - found.keys()))
        raise ConnectionResetError(f"the client did not open its streams: {missing}") from None
    return found


async def _serve(channels: Mapping[str, Channel], command: Command, version: int) -> None:
    """Run the session and send its outcome to the client."""
    status = await _run(command, _ClientStdio(channels, command.streams))
    for channel in channels.values():
        channel.ignore()
    if message := _encoded(status, version):
        await channels["error"].write(message)
    for name in ("stdout", "stderr", "error"):
        if name in channels:
            await channels[name].finish()


async def _run(command: Command, stdio: _ClientStdio) -> dict[str, Any]:
    """Run the session and return its outcome as metav1.Status."""
    try:
        code = await command.run(stdio)
    except NoderuntimeError as error:
        _log.info("session failed", session=command.name, error=error)
        message = f"Internal error occurred: {_FAILURES[command.name]}: {error}"
        return _failure("InternalError", message) | {"code": 500}
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    causes = [{"reason": "ExitCode", "message": str(code)}]
    message = f"command terminated with non-zero exit code: exit status {code}"
    return _failure("NonZeroExitCode", message) | {"details": {"causes": causes}}


def _failure(reason: str, message: str) -> dict[str, Any]:
    return {"metadata": {}, "status": "Failure", "message": message, "reason": reason}


def _encoded(status: Mapping[str, Any], version: int) -> bytes:
    """Return a status in the format of the protocol's version."""
    if version >= 4:
        return json.dumps(status).encode()
    return str(status.get("message", "")).encode()


class _ClientStdio:
    """See :class:`noderuntime.core.sessions.Stdio`."""

    def __init__(self, channels: Mapping[str, Channel], streams: Streams) -> None:
        self._channels = channels
        self._wanted = {STDOUT: streams.stdout, STDERR: streams.stderr}

    async def read(self) -> bytes:
        """Return the client's next input."""
        return await self._channels["stdin"].read()

    async def write(self, stream: int, data: bytes) -> None:
        """Send output to the client, if it requested the stream."""
        if self._wanted[stream]:
            await self._channels["stdout" if stream == STDOUT else "stderr"].write(data)

    async def sizes(self) -> AsyncGenerator[tuple[int, int]]:
        """Yield the sizes of JSON objects with ``Width`` and ``Height``. Others are ignored."""
        if "resize" not in self._channels:
            return
        text = ""
        while len(text) < _LARGEST_SIZE and (data := await self._channels["resize"].read()):
            text, size = _last_size(text + data.decode(errors="replace"))
            if size is not None:
                yield size


def _last_size(text: str) -> tuple[str, tuple[int, int] | None]:
    """Return the rest of a text after its JSON objects, and their last valid size as (rows, columns)."""
    size, end = None, 0
    for found in _OBJECT.finditer(text):
        end = found.end()
        with suppress(ValueError):
            value = json.loads(found.group())
            size = _size(value.get("Height"), value.get("Width")) or size
    return text[end:], size


def _size(rows: object, columns: object) -> tuple[int, int] | None:
    """Return the size as (rows, columns) if it is valid for a terminal, else None."""
    if isinstance(rows, int) and isinstance(columns, int) and min(rows, columns) > 0:
        return min(rows, _WIDEST), min(columns, _WIDEST)
    return None
