"""The streaming server: one port at which clients collect the sessions that were offered to them.

    POST /exec/<token> | /attach/<token> | /portforward/<token>, with an upgrade to SPDY/3.1 or WebSocket

The token is all that a client has to show, and is good once. Until it has shown one, a client gets ten
seconds and 16 KiB, and only so many may try at the same time.
"""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus

from noderuntime.config import StreamingConfig
from noderuntime.core import log, tasks
from noderuntime.core.errors import InvalidArgument, host_error
from noderuntime.core.sessions import Session
from noderuntime.edge.streaming.request import Refused, Request, read_request, refusal
from noderuntime.edge.streaming.tokens import Tokens
from noderuntime.edge.streaming.upgrade import Served, upgrade
from noderuntime.edge.streaming.wire import TcpWire

_log = log.get(__name__)

_HANDSHAKE = 10.0
"""Seconds that a client has for its request."""
_MOST_STRANGERS = 256
"""Connections that have not shown a token yet."""
_IDLE = 4 * 3600.0
"""Seconds after which a session on which nothing moves is ended; the kubelet has the same limit."""


class StreamingServer:
    """Offers sessions (see :class:`noderuntime.core.sessions.Offers`) and serves those who come for them."""

    def __init__(self, config: StreamingConfig) -> None:
        self._config = config
        self._tokens = Tokens(config.token_ttl)
        self._base = ""
        self._serving: set[asyncio.Task[None]] = set()
        self._strangers: set[TcpWire] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; HostError when the address cannot be had, InvalidArgument for bad TLS files."""
        host, port = str(self._config.address), self._config.port
        tls = _tls(self._config)
        try:
            self._server = await asyncio.start_server(
                self._connected, host, port, ssl=tls, ssl_handshake_timeout=_HANDSHAKE if tls else None
            )
        except OSError as error:
            raise host_error(f"listen on {host} port {port}", error) from error
        port = self._server.sockets[0].getsockname()[1]
        self._base = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        _log.info("streaming", url=self._base)

    async def stop(self) -> None:
        """Stop listening and end all sessions, as if their clients had left."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await tasks.settle(*self._serving)

    def offer(self, session: Session) -> str:
        """Return the URL under which one client may have the session."""
        return f"{self._base}/{session.name}/{self._tokens.put(session)}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = TcpWire(reader, writer)
        if len(self._strangers) >= _MOST_STRANGERS:
            wire.abort()
            return
        self._strangers.add(wire)
        task = tasks.start(self._handle(wire, reader), name="serve a streaming client")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _handle(self, wire: TcpWire, reader: asyncio.StreamReader) -> None:
        """Serve one connection."""
        try:
            await self._meet(wire, reader)
            await wire.close()
        except (ConnectionError, TimeoutError) as error:
            _log.debug("a client left, or was left", error=error)
        except Exception:
            _log.exception("a streaming session failed in an unforeseen way")
        finally:
            self._strangers.discard(wire)
            wire.abort()

    async def _meet(self, wire: TcpWire, reader: asyncio.StreamReader) -> None:
        """Serve a client that has a token, and say to others why not."""
        try:
            async with asyncio.timeout(_HANDSHAKE):
                request = await read_request(reader)
            agreed = upgrade(request, self._session(request))
        except Refused as refused:
            _log.info("a client was refused", status=refused.status.value, reason=refused.words)
            await wire.write(refusal(refused))
            await wire.finish()
            return
        self._strangers.discard(wire)
        wire.unread(request.rest)
        await wire.write(agreed.answer)
        await _serve(wire, agreed.begin(wire))

    def _session(self, request: Request) -> Session:
        name, _, token = request.path.removeprefix("/").partition("/")
        session = self._tokens.take(token)
        if session is None or session.name != name:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such session, or no more")
        if request.method not in ("GET", "POST"):
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET or POST")
        return session


async def _serve(wire: TcpWire, served: Served) -> None:
    """Serve until the session ends, the client leaves, or nothing has moved for too long."""

    async def serve() -> None:
        await served.serve()
        await served.link.finish()

    async with tasks.Scope() as scope:
        reading = scope.start(served.link.run(), name="read from a streaming client")
        serving = scope.start(serve(), name="serve a session")
        while not reading.done() and not serving.done() and wire.idle() < _IDLE:
            await tasks.first(reading, serving, timeout=_IDLE - wire.idle())
        if serving.done():
            serving.result()
        elif reading.done():
            reading.result()
        else:
            raise TimeoutError(f"nothing moved for {_IDLE:g} s")


def _tls(config: StreamingConfig) -> ssl.SSLContext | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"streaming.tls_cert, streaming.tls_key: {error}") from error
    return context
