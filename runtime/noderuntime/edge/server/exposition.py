"""``GET /metrics`` for Prometheus, and nothing else: one request for each connection.

Not by aiohttp's server, which costs every node 11 MiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from noderuntime.core import log
from noderuntime.core.blocking import Lane

_log = log.get(__name__)

_HEAD_LIMIT = 8192
_SECONDS = 10.0
"""How long a client may take, all in all."""
_CLIENTS = 8
_LANE = Lane("metrics", 1)
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def serve_metrics(address: tuple[str, int] | None, text: Callable[[], bytes]) -> AsyncIterator[None]:
    """Answer at the address meanwhile; ``text`` is called in a thread.

    One that cannot be had is an error in the log and no more: pods are worth more than their numbers.
    """
    if address is None:
        yield
        return
    try:
        server = await asyncio.start_server(_Exposition(text).answer, *address, limit=_HEAD_LIMIT)
    except OSError as error:
        _log.error("metrics are not served", address=address[0], port=address[1], error=error.strerror)
        yield
        return
    _log.info("serving metrics", address=address[0], port=address[1])
    try:
        yield
    finally:
        server.close()


class _Exposition:
    """Answers clients, a few at a time."""

    def __init__(self, text: Callable[[], bytes]) -> None:
        self._text = text
        self._clients = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; a client that is slow, or one too many, is left alone."""
        self._clients += 1
        try:
            if self._clients <= _CLIENTS:
                async with asyncio.timeout(_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await _LANE.run(self._response, head))
                    writer.close()
                    await writer.wait_closed()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            _log.debug("a client of the metrics went away", error=error)
        finally:
            self._clients -= 1
            writer.transport.abort()

    def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _message("404 Not Found", b"there is only /metrics\n")
        if method != b"GET":
            return _message("405 Method Not Allowed", b"there is only GET\n")
        return _message("200 OK", self._text())


def _message(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
