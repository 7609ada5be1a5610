"""Faults of a registry: factories of behaviours for :class:`registries.hostile.FaultyRegistry`."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import replace
from typing import Any

from noderuntime.core.errors import NoderuntimeError
from registries.hostile import Behaviour, Exchange, FaultyRegistry, honest
from registries.sink import MemorySink

MIB = 1 << 20
HEAD_OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD_OK + b"Transfer-Encoding: chunked\r\n\r\n"

Case = tuple[str, Behaviour, type[NoderuntimeError], str]
"""Its name, the behaviour, and the expected error."""


def cases(rows: list[Case]) -> dict[str, Any]:
    """Return the arguments of ``parametrize`` for a table of behaviours."""
    return {
        "argnames": ("behaviour", "kind", "words"),
        "argvalues": [case[1:] for case in rows],
        "ids": [case[0] for case in rows],
    }


def answers(status: int = 200, body: bytes = b"", **headers: object) -> Behaviour:
    """Send this response to every request."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.reply(status, body, **headers)

    return behaviour


HTML = answers(200, b"<html>please log in</html>", Content_Type="text/html; charset=utf-8")


def sends(raw: bytes) -> Behaviour:
    """Send these bytes instead of HTTP, and close the connection."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.send(raw)
        exchange.close()

    return behaviour


def repeats(raw: bytes, first: bytes = b"") -> Behaviour:
    """Send these bytes repeatedly until the client disconnects."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.send(first)
        while True:
            await exchange.send(raw)
            await asyncio.sleep(0)  # the client runs on the same loop

    return behaviour


def endless(letter: bytes) -> Behaviour:
    """Send an endless body."""
    return repeats(b"1000\r\n%b\r\n" % (letter * 4096), CHUNKED)


def trickles(first: bytes, every: float = 0.05) -> Behaviour:
    """Send the head at once, then one byte at a time."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.send(first)
        while True:
            await exchange.send(b"x")
            await asyncio.sleep(every)

    return behaviour


def stalls(first: bytes = b"") -> Behaviour:
    """Send this and then nothing, on an open connection."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.send(first)
        await asyncio.Event().wait()

    return behaviour


def cut_after(count: int, sink: MemorySink) -> Behaviour:
    """Announce the whole response, send its first bytes, and reset when they are in the sink."""

    async def behaviour(exchange: Exchange) -> None:
        send, left, arrived = exchange.send, count, sink.offset + count

        async def send_less(data: bytes) -> None:
            nonlocal left
            body = not data.startswith(b"HTTP/")
            await send(data[:left] if body else data)
            left -= len(data) if body else 0
            if left <= 0:
                await sink.holds(arrived)  # a reset discards bytes that were not read
                exchange.reset()

        exchange.send = send_less  # type: ignore[method-assign]
        await honest(exchange)

    return behaviour


async def without_ranges(exchange: Exchange) -> None:
    """Serve whole blobs for range requests."""
    headers = {name: value for name, value in exchange.asked.headers.items() if name != "range"}
    await honest(replace(exchange, asked=replace(exchange.asked, headers=headers)))


def chunked(body: bytes, *, ends: bool = True) -> Behaviour:
    """Send a body without announcing its size."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.head(200, Transfer_Encoding="chunked")
        await exchange.chunk(body)
        if ends:
            await exchange.send(b"0\r\n\r\n")
        else:
            await asyncio.Event().wait()

    return behaviour


def redirects(to: str, status: int = 307) -> Behaviour:
    """Redirect; ``{path}`` is replaced by the requested path."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.reply(status, b"", Location=to.replace("{path}", exchange.asked.path))

    return behaviour


def gzipped(body: bytes, **headers: object) -> Behaviour:
    """Send a compressed body that was not requested."""
    return answers(200, gzip.compress(body), Content_Encoding="gzip", **headers)


def wants_password(inner: Behaviour = honest) -> Behaviour:
    """Serve any client that sends credentials."""

    async def behaviour(exchange: Exchange) -> None:
        if "authorization" in exchange.asked.headers:
            await inner(exchange)
        else:
            await exchange.reply(401, b"", WWW_Authenticate='Basic realm="registry"')

    return behaviour


def challenge(realm: str, **parameters: str) -> str:
    """Return a challenge for bearer tokens."""
    known = {"realm": realm, "service": "registry", **parameters}
    return "Bearer " + ",".join(f'{name}="{value}"' for name, value in known.items())


class Desk:
    """Issues tokens and revokes them."""

    def __init__(self, registry: FaultyRegistry) -> None:
        """Issue tokens at the registry's own address and require them for all its requests."""
        self.valid: set[str] = set()
        self.given = 0
        self.realm = f"http://{registry.authority}/token"
        registry.on("(GET|HEAD) /v2/", self.guard())
        registry.on("(GET|POST) /token", self.give)

    async def give(self, exchange: Exchange) -> None:
        self.given += 1
        token = f"minted-token-{self.given}"
        self.valid.add(f"Bearer {token}")
        await exchange.reply(200, json.dumps({"token": token, "expires_in": 300}).encode())

    def guard(self, inner: Behaviour = honest) -> Behaviour:
        """Serve clients with a valid token."""

        async def behaviour(exchange: Exchange) -> None:
            if exchange.asked.headers.get("authorization") in self.valid:
                await inner(exchange)
            else:
                await exchange.reply(401, b"", WWW_Authenticate=challenge(self.realm))

        return behaviour

    def once(self) -> Behaviour:
        """Serve clients with a valid token, once per token."""
        guard = self.guard()

        async def behaviour(exchange: Exchange) -> None:
            await guard(exchange)
            self.valid.clear()

        return behaviour
