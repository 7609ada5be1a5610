"""Reads the HTTP/1.1 request of a connection, and builds the response before the protocol switch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import h11

_LARGEST = 1 << 14
"""Limit in bytes of request line and headers."""
_CHUNK = 1 << 12

Headers = Mapping[str, str]


class Refused(Exception):
    """The request cannot be served. The client gets the status and the message."""

    def __init__(self, status: HTTPStatus, message: str, headers: Headers | None = None) -> None:
        self.status = status
        self.message = message
        self.headers = headers or {}
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Request:
    """A request without a body."""

    method: str
    path: str
    """Without the query."""
    headers: Headers
    """By lower-case name; repeated headers are joined by commas."""
    rest: bytes
    """Bytes after the request, in the protocol to switch to."""

    def values(self, header: str) -> list[str]:
        """Return the comma-separated values of a header."""
        return [value.strip() for value in self.headers.get(header.lower(), "").split(",") if value.strip()]

    def upgrades_to(self, protocol: str) -> bool:
        """Return whether the client requests a switch to the protocol."""
        wanted = [value.lower() for value in self.values("upgrade")]
        return protocol.lower() in wanted and "upgrade" in map(str.lower, self.values("connection"))


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Return the request. Refused if it cannot be served, ConnectionError if the client disconnects."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST)
    try:
        request = await _next(http, reader)
        if not isinstance(request, h11.Request):
            raise ConnectionResetError("the client disconnected without a request")
        headers = _joined(request)
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            raise Refused(HTTPStatus.BAD_REQUEST, "the request must not have a body")
        await _next(http, reader)  # the end of the message
    except h11.RemoteProtocolError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
    rest, _ = http.trailing_data
    return Request(
        method=request.method.decode("ascii"),
        path=request.target.decode("latin-1").partition("?")[0],
        headers=headers,
        rest=rest,
    )


async def _next(http: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(_CHUNK))
    return event


def _joined(request: h11.Request) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def refusal(refused: Refused) -> bytes:
    """Return the response to a refused request."""
    body = f"{refused.message}\n".encode(errors="replace")
    fields = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **refused.headers,
    }
    return _head(refused.status, fields) + body


def switching(protocol: str, headers: Headers) -> bytes:
    """Return the response that switches the connection's protocol."""
    fields = {"Connection": "Upgrade", "Upgrade": protocol, **headers}
    return _head(HTTPStatus.SWITCHING_PROTOCOLS, fields)


def _head(status: HTTPStatus, fields: Headers) -> bytes:
    lines = [f"HTTP/1.1 {status} {status.phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")
