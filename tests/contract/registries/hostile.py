"""A registry that follows the distribution spec, except where a test lets it misbehave.

    registry.on("GET /v2/team/app/blobs/", reset_after(1000), honest)

The first matching request is answered by the first behaviour, the next by the second; the
last one stays. It speaks HTTP by hand, because no library helps in breaking it.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import parse_qs, urlsplit

from registries.content import Content

REASONS = {200: "OK", 206: "Partial Content", 401: "Unauthorized", 404: "Not Found"}


@dataclass(frozen=True)
class Asked:
    """A received request."""

    method: str
    target: str
    headers: Mapping[str, str]
    """By lower-case name."""
    raw: bytes
    """The whole body."""
    certificate: bool = False
    """Whether the client sent a certificate."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)


@dataclass
class Exchange:
    """A request and its connection, to respond in any way."""

    asked: Asked
    content: Content
    writer: asyncio.StreamWriter
    stays: bool = True
    """Whether the connection can be used for another request."""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, **headers: object) -> None:
        """Send status and headers. Underscores in names become dashes."""
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Whatever')}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def reply(self, status: int = 200, body: bytes = b"", **headers: object) -> None:
        """Send a valid response."""
        await self.head(status, **{"Content_Length": len(body), **headers})
        if self.asked.method != "HEAD":
            await self.send(body)

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self.stays = False
        self.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """Close the connection after this response."""
        self.stays = False


Behaviour = Callable[[Exchange], Awaitable[None]]


async def honest(exchange: Exchange) -> None:
    """Serve manifests and blobs by the distribution spec, ranges included."""
    kind, _, name = exchange.asked.path.rpartition("/")
    content = exchange.content
    if kind.endswith("/manifests"):
        media_type, body = content.manifests.get(content.tags.get(name, name), ("", b""))
        digest = content.tags.get(name, name)
    else:
        media_type, body, digest = "application/octet-stream", content.blobs.get(name, b""), name
    if not body:
        await exchange.reply(404, json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]}).encode())
        return
    headers = {"Content_Type": media_type, "Docker_Content_Digest": digest}
    if asked := re.fullmatch("bytes=([0-9]+)-", exchange.asked.headers.get("range", "")):
        start, size = int(asked.group(1)), len(body)
        headers["Content_Range"] = f"bytes {start}-{size - 1}/{size}"
        await exchange.reply(206, body[start:], **headers)
    else:
        await exchange.reply(200, body, **headers)


@dataclass
class Rule:
    """The behaviours for requests that match a pattern."""

    pattern: str
    behaviours: list[Behaviour]

    def next(self) -> Behaviour:
        return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]


@dataclass
class FaultyRegistry:
    """One server on loopback."""

    content: Content = field(default_factory=Content)
    asked: list[Asked] = field(default_factory=list)
    authority: str = ""
    _rules: list[Rule] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def on(self, pattern: str, *behaviours: Behaviour) -> None:
        """Respond to requests whose ``METHOD /path`` starts with this pattern. The newest rule wins."""
        self._rules.insert(0, Rule(pattern, list(behaviours)))

    def seen(self, pattern: str) -> list[Asked]:
        """Return the requests that match a pattern."""
        return [one for one in self.asked if re.match(pattern, f"{one.method} {one.target}")]

    async def start(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._serve, host, 0, ssl=tls)
        port = self._server.sockets[0].getsockname()[1]
        self.authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self._exchange(reader, writer):
                    pass
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._running.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        raw = await reader.readexactly(1)
        if raw == b"\x16":  # a TLS handshake with a server without TLS
            return False
        raw += await reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        raw += await reader.readexactly(int(headers.get("content-length", 0)))
        method, target, _ = first.split(" ", 2)
        certificate = bool(writer.get_extra_info("peercert"))
        exchange = Exchange(Asked(method, target, headers, raw, certificate), self.content, writer)
        self.asked.append(exchange.asked)
        rules = (rule for rule in self._rules if re.match(rule.pattern, f"{method} {target}"))
        rule = next(rules, None)
        await (rule.next() if rule else honest)(exchange)
        return exchange.stays
