"""The HTTP/1.1 request that begins a connection, and what we answer before another protocol takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import h11

_LARGEST = 1 << 14
"""Bytes of request line and headers, up to the last chunk."""
_CHUNK = 1 << 12

Headers = Mapping[str, str]


class Refused(Exception):
    """The request cannot be served; the client gets status and words."""

    def __init__(self, status: HTTPStatus, words: str, headers: Headers | None = None) -> None:
        self.status = status
        self.words = words
        self.headers = headers or {}
        super().__init__(words)


@dataclass(frozen=True, slots=True)
class Request:
    """A request without a body."""

    method: str
    path: str
    """Without the query."""
    headers: Headers
    """By lower-case name; the values of one that came several times are joined by commas."""
    rest: bytes
    """What the client sent behind it, in the protocol that it wants to switch to."""

    def values(self, header: str) -> list[str]:
        """Return the comma-separated values of a header."""
        return [value.strip() for value in self.headers.get(header.lower(), "").split(",") if value.strip()]

    def upgrades_to(self, protocol: str) -> bool:
        """Tell whether the client asks to switch to that protocol."""
        wanted = [value.lower() for value in self.values("upgrade")]
        return protocol.lower() in wanted and "upgrade" in map(str.lower, self.values("connection"))


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Read a request; Refused when it is none of ours, ConnectionError when the client leaves."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST)
    try:
        request = await _next(http, reader)
        if not isinstance(request, h11.Request):
            raise ConnectionResetError("the client left without a request")
        headers = _joined(request)
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            raise Refused(HTTPStatus.BAD_REQUEST, "a request with a body")
        await _next(http, reader)  # its end
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
    """Write the answer to a request that is not served."""
    body = f"{refused.words}\n".encode(errors="replace")
    fields = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **refused.headers,
    }
    return _head(refused.status, fields) + body


def switching(protocol: str, headers: Headers) -> bytes:
    """Write the answer after which the connection speaks another protocol."""
    fields = {"Connection": "Upgrade", "Upgrade": protocol, **headers}
    return _head(HTTPStatus.SWITCHING_PROTOCOLS, fields)


def _head(status: HTTPStatus, fields: Headers) -> bytes:
    lines = [f"HTTP/1.1 {status} {status.phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")
