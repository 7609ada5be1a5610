"""The HTTP endpoint of Prometheus metrics: ``GET /metrics``, one request per connection.

aiohttp's server is not used because it takes 11 MiB of memory on every node.
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
"""The deadline of a request, from the connection to the last byte."""
_CLIENTS = 8
_LANE = Lane("metrics", 1)
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def serve_metrics(address: tuple[str, int] | None, text: Callable[[], bytes]) -> AsyncIterator[None]:
    """Serve metrics at the address while the context is entered. ``text`` is called in a thread.

    If the address cannot be bound, log an error and serve without metrics.
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
    """The handler of connections, with a limit on concurrent clients."""

    def __init__(self, text: Callable[[], bytes]) -> None:
        self._text = text
        self._clients = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request. A slow client, or one above the limit, is disconnected."""
        self._clients += 1
        try:
            if self._clients <= _CLIENTS:
                async with asyncio.timeout(_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await _LANE.run(self._response, head))
                    writer.close()
                    await writer.wait_closed()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            _log.debug("client of the metrics endpoint disconnected", error=error)
        finally:
            self._clients -= 1
            writer.transport.abort()

    def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _message("404 Not Found", b"the only path is /metrics\n")
        if method != b"GET":
            return _message("405 Method Not Allowed", b"the only method is GET\n")
        return _message("200 OK", self._text())


def _message(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
