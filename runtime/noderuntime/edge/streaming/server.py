"""The streaming server: one port at which clients start the sessions of their CRI calls.

    POST /exec/<token> | /attach/<token> | /portforward/<token>, with an upgrade to SPDY/3.1 or WebSocket

The token authenticates the client and is valid once. Before it has sent one, a client gets ten seconds
and 16 KiB, and the number of such connections is limited.
"""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus

from noderuntime.config import StreamingConfig
from noderuntime.core import log, tasks
from noderuntime.core.errors import host_error
from noderuntime.core.sessions import Session
from noderuntime.edge.streaming.certificate import Certificate
from noderuntime.edge.streaming.request import Refused, Request, read_request, refusal
from noderuntime.edge.streaming.tokens import Tokens
from noderuntime.edge.streaming.upgrade import Served, upgrade
from noderuntime.edge.streaming.wire import TcpWire

_log = log.get(__name__)

_HANDSHAKE = 10.0
"""Seconds that a client has to send its request."""
_MOST_UNAUTHENTICATED = 256
"""Limit on connections that have not sent a token."""
_IDLE = 4 * 3600.0
"""Seconds after which an idle session is ended, as in the kubelet."""


class StreamingServer:
    """Offers sessions (see :class:`noderuntime.core.sessions.Offers`) and serves them to clients."""

    def __init__(self, config: StreamingConfig) -> None:
        self._config = config
        self._tokens = Tokens(config.token_ttl)
        self._base = ""
        self._serving: set[asyncio.Task[None]] = set()
        self._unauthenticated: set[TcpWire] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. HostError if the address cannot be bound, InvalidArgument if the TLS files are invalid."""
        host, port = str(self._config.address), self._config.port
        tls = await self._tls()
        try:
            self._server = await asyncio.start_server(
                self._connected, host, port, ssl=tls, ssl_handshake_timeout=_HANDSHAKE if tls else None
            )
        except OSError as error:
            raise host_error(f"listen on {host} port {port}", error) from error
        port = self._server.sockets[0].getsockname()[1]
        self._base = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        _log.info("streaming server listening", url=self._base)

    async def stop(self) -> None:
        """Stop listening and end all sessions, as if their clients had disconnected."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await tasks.settle(*self._serving)

    async def _tls(self) -> ssl.SSLContext | None:
        """Return the context of TLS connections, and renew the certificate from now on; None without TLS."""
        if self._config.tls_cert is None or self._config.tls_key is None:
            return None
        certificate = Certificate(self._config.tls_cert, self._config.tls_key)
        context = await certificate.load()
        self._serving.add(tasks.background(certificate.follow(), name="renew the streaming certificate"))
        return context

    def offer(self, session: Session) -> str:
        """Return the URL at which one client can start the session."""
        return f"{self._base}/{session.name}/{self._tokens.put(session)}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = TcpWire(reader, writer)
        if len(self._unauthenticated) >= _MOST_UNAUTHENTICATED:
            wire.abort()
            return
        self._unauthenticated.add(wire)
        task = tasks.start(self._handle(wire, reader), name="serve a streaming client")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _handle(self, wire: TcpWire, reader: asyncio.StreamReader) -> None:
        """Serve one connection."""
        try:
            await self._authenticate_and_serve(wire, reader)
            await wire.close()
        except (ConnectionError, TimeoutError) as error:
            _log.debug("streaming connection ended early", error=error)
        except Exception:
            _log.exception("streaming session failed unexpectedly")
        finally:
            self._unauthenticated.discard(wire)
            wire.abort()

    async def _authenticate_and_serve(self, wire: TcpWire, reader: asyncio.StreamReader) -> None:
        """Serve a client with a valid token. Others get an HTTP error."""
        try:
            async with asyncio.timeout(_HANDSHAKE):
                request = await read_request(reader)
            agreed = upgrade(request, self._session(request))
        except Refused as refused:
            _log.info("request refused", status=refused.status.value, reason=refused.message)
            await wire.write(refusal(refused))
            await wire.finish()
            return
        self._unauthenticated.discard(wire)
        wire.unread(request.rest)
        await wire.write(agreed.answer)
        await _serve(wire, agreed.begin(wire))

    def _session(self, request: Request) -> Session:
        name, _, token = request.path.removeprefix("/").partition("/")
        session = self._tokens.take(token)
        if session is None or session.name != name:
            raise Refused(HTTPStatus.NOT_FOUND, "the session does not exist or has expired")
        if request.method not in ("GET", "POST"):
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "the method must be GET or POST")
        log.bind(session=session.name)
        return session


async def _serve(wire: TcpWire, served: Served) -> None:
    """Serve until the session ends, the client disconnects, or the connection is idle for too long."""

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
            raise TimeoutError(f"the connection was idle for {_IDLE:g} s")
