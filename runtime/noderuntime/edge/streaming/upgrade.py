"""Selects the protocol of a request and connects it to its session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

from noderuntime.core.sessions import Command, Forward, Session
from noderuntime.edge.streaming import portforward, remotecommand
from noderuntime.edge.streaming.channel import Link
from noderuntime.edge.streaming.request import Refused, Request, switching
from noderuntime.edge.streaming.spdylink import SpdyLink
from noderuntime.edge.streaming.websocket import WebSocket, accept
from noderuntime.edge.streaming.wire import Wire

SPDY = "SPDY/3.1"
_VERSION = "X-Stream-Protocol-Version"


@dataclass(frozen=True, slots=True)
class Served:
    """A link to the client, and the function that serves the session over it."""

    link: Link
    serve: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The response that switches protocols, and the function that starts the new protocol."""

    answer: bytes
    begin: Callable[[Wire], Served]


def upgrade(request: Request, session: Session) -> Upgrade:
    """Return the protocol switch for a request. Refused if there is no common protocol."""
    if request.upgrades_to("websocket"):
        if isinstance(session, Command):
            return _command_over_websocket(request, session)
        return _forward_over_websocket(request, session)
    if request.upgrades_to(SPDY):
        if isinstance(session, Command):
            return _command_over_spdy(request, session)
        return _forward_over_spdy(request, session)
    raise Refused(HTTPStatus.BAD_REQUEST, f"unable to upgrade: neither {SPDY} nor websocket was requested")


def _command_over_spdy(request: Request, command: Command) -> Upgrade:
    protocol = _agree(request.values(_VERSION), remotecommand.SPDY_PROTOCOLS)

    def begin(wire: Wire) -> Served:
        link = SpdyLink(wire, remotecommand.MOST_STREAMS)
        return Served(link, lambda: remotecommand.serve_spdy(link, command, protocol))

    return Upgrade(_switch_to_spdy(protocol), begin)


def _command_over_websocket(request: Request, command: Command) -> Upgrade:
    protocol = _agree(request.values("Sec-WebSocket-Protocol"), remotecommand.WEBSOCKET_PROTOCOLS)

    def begin(wire: Wire) -> Served:
        link = remotecommand.websocket_link(WebSocket(wire), command, protocol)
        return Served(link, lambda: remotecommand.serve_websocket(link, command, protocol))

    return Upgrade(accept(request, protocol), begin)


def _forward_over_spdy(request: Request, forward: Forward) -> Upgrade:
    protocol = _agree(request.values(_VERSION), (portforward.PROTOCOL, ""))

    def begin(wire: Wire) -> Served:
        link = SpdyLink(wire, portforward.MOST_STREAMS)
        return Served(link, lambda: portforward.serve_spdy(link, forward))

    return Upgrade(_switch_to_spdy(protocol), begin)


def _forward_over_websocket(request: Request, forward: Forward) -> Upgrade:
    known = (portforward.TUNNEL, *(portforward.WEBSOCKET_PROTOCOLS if forward.ports else ()))
    protocol = _agree(request.values("Sec-WebSocket-Protocol"), known)

    def begin(wire: Wire) -> Served:
        socket = WebSocket(wire)
        if protocol == portforward.TUNNEL:
            spdy = SpdyLink(socket, portforward.MOST_STREAMS)
            return Served(spdy, lambda: portforward.serve_spdy(spdy, forward))
        link = portforward.websocket_link(socket, forward, protocol)
        return Served(link, lambda: portforward.serve_websocket(link, forward))

    return Upgrade(accept(request, protocol), begin)


def _agree(asked: list[str], known: Iterable[str]) -> str:
    """Return the first protocol of the client that we support. The oldest clients request none."""
    ours = tuple(known)
    for protocol in asked or ("",):
        if protocol in ours:
            return protocol
    message = f"unable to upgrade: supported protocols are {', '.join(filter(None, ours))}"
    raise Refused(HTTPStatus.FORBIDDEN, f"{message}; requested: {', '.join(asked)[:200] or 'none'}")


def _switch_to_spdy(protocol: str) -> bytes:
    return switching(SPDY, {_VERSION: protocol} if protocol else {})
