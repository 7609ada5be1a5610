"""The streaming server: requests, tokens, limits and TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from spdyclient import SpdyClient
from streamclient import SpdySession, ask, spdy, websocket_headers
from streamingsessions import command

from noderuntime.config import StreamingConfig
from noderuntime.core.errors import HostError, InvalidArgument, ResourceExhausted
from noderuntime.core.sessions import Forward, Stdio
from noderuntime.edge.streaming import certificate
from noderuntime.edge.streaming.server import StreamingServer
from noderuntime.node.host.base import STDOUT

SPDY = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}


async def says_hello(stdio: Stdio) -> int:
    await stdio.write(STDOUT, b"hello")
    return 0


async def hears_hello(client: SpdySession) -> None:
    async with client:
        out = await client.open(streamtype="stdout")
        for name in ("stderr", "error"):
            await client.open(streamtype=name)
        await client.until(lambda: client.gone_away)
    assert client.received[out] == b"hello"


async def test_a_url_is_valid_once(server: StreamingServer) -> None:
    url = server.offer(command(says_hello))
    assert url.startswith("http://127.0.0.1:")
    await hears_hello(await spdy(url))
    again = await ask(url, SPDY)
    assert (again.status, again.body) == (404, b"the session does not exist or has expired\n")


@pytest.mark.parametrize(
    ("path", "headers", "method", "status", "words"),
    [
        ("/exec/{token}", {}, "POST", 400, b"neither SPDY/3.1 nor websocket"),
        ("/exec/{token}", SPDY | {"Connection": "keep-alive"}, "POST", 400, b"neither"),
        ("/exec/{token}", SPDY | {"Upgrade": "h2c"}, "POST", 400, b"neither"),
        ("/exec/{token}", SPDY | {"X-Stream-Protocol-Version": "v9"}, "POST", 403, b"v4.channel.k8s.io"),
        ("/exec/{token}", SPDY | {"Content-Length": "3"}, "POST", 400, b"body"),
        ("/exec/{token}", SPDY | {"Transfer-Encoding": "chunked"}, "POST", 400, b"body"),
        ("/exec/{token}", SPDY, "DELETE", 405, b"GET or POST"),
        ("/exec/{token}", websocket_headers("v9.channel.k8s.io"), "GET", 403, b"v5.channel.k8s.io"),
        ("/exec/{token}", websocket_headers() | {"Sec-WebSocket-Version": "8"}, "GET", 426, b"version 13"),
        ("/exec/{token}", websocket_headers() | {"Sec-WebSocket-Key": ""}, "GET", 400, b"Key"),
        ("/exec/{token}", websocket_headers(), "POST", 400, b"GET"),
        ("/attach/{token}", SPDY, "POST", 404, b"the session does not exist"),
        ("/portforward/{token}", SPDY, "POST", 404, b"the session does not exist"),
        ("/exec/{token}/more", SPDY, "POST", 404, b"the session does not exist"),
        ("/exec/", SPDY, "POST", 404, b"the session does not exist"),
        ("/", SPDY, "POST", 404, b"the session does not exist"),
        ("//{token}", SPDY, "POST", 404, b"the session does not exist"),
        ("/exec/" + "A" * 43, SPDY, "POST", 404, b"the session does not exist"),
        ("/exec/{token}", SPDY | {"X": "x" * 30_000}, "POST", 400, b""),
    ],
)
async def test_a_refused_request_gets_its_reason(
    server: StreamingServer, path: str, headers: dict[str, str], method: str, status: int, words: bytes
) -> None:
    url = urlsplit(server.offer(command(says_hello)))
    token = url.path.rsplit("/", 1)[1]
    target = url._replace(path=path.format(token=token)).geturl()
    answer = await ask(target, headers, method=method)
    assert answer.status == status
    assert words in answer.body
    assert token.encode() not in answer.body


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\r\n" * 20_000, b"\0" * 100_000]
)
async def test_an_invalid_request_is_answered_or_disconnected(server: StreamingServer, raw: bytes) -> None:
    port = urlsplit(server.offer(command(says_hello))).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    writer.write_eof()
    async with asyncio.timeout(15):
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
    writer.close()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


async def test_data_sent_with_the_request_is_not_lost(server: StreamingServer) -> None:
    client = SpdyClient()
    early = b"".join(client.open({"streamtype": name}) for name in ("stdout", "stderr", "error"))
    answer = await ask(server.offer(command(says_hello)), SPDY, tail=early)
    async with SpdySession(answer, client=client) as session:
        await session.ends()
    assert session.received[1] == b"hello"


async def test_a_silent_client_is_disconnected(
    server: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noderuntime.edge.streaming.server._HANDSHAKE", 0.2)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", urlsplit(server.offer(command(says_hello))).port
    )
    writer.write(b"POST /exec/")
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


async def test_unauthenticated_connections_are_limited_and_expire(
    server: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noderuntime.edge.streaming.server._MOST_UNAUTHENTICATED", 20)
    monkeypatch.setattr("noderuntime.edge.streaming.server._HANDSHAKE", 1.0)
    url = server.offer(command(says_hello))
    strangers = [socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) for _ in range(100)]
    async with asyncio.timeout(10):
        while len(server._unauthenticated) < 20:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(server._unauthenticated) == 20
        while server._unauthenticated:
            await asyncio.sleep(0.01)
    for stranger in strangers:
        stranger.close()
    await hears_hello(await spdy(url))


async def test_the_number_of_offered_sessions_is_limited(server: StreamingServer) -> None:
    async def nobody(_port: int, _stdio: Stdio) -> None:
        raise NotImplementedError

    for _ in range(1000):
        server.offer(Forward("pod1", (), nobody))
    with pytest.raises(ResourceExhausted):
        server.offer(command(says_hello))


async def test_a_session_that_raises_ends_only_itself(
    server: StreamingServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def buggy(_stdio: Stdio) -> int:
        raise KeyError("a bug")

    async with await spdy(server.offer(command(buggy))) as client:
        for name in ("stdout", "stderr", "error"):
            await client.open(streamtype=name)
        await client.ends()
    (record,) = [one for one in caplog.records if one.message == "streaming session failed unexpectedly"]
    assert record.noderuntime_values["session"] == "exec"
    await hears_hello(await spdy(server.offer(command(says_hello))))


def make_certificate(cert: Path, key: Path) -> str:
    """Write a new certificate for 127.0.0.1 and its key, and return the certificate."""
    request = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
    names = ("-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        ["openssl", *request, *names, "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return cert.read_text()


@pytest.fixture
async def tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[StreamingServer, Path, Path]]:
    """A server with TLS that checks its files often, its certificate and its key."""
    monkeypatch.setattr(certificate, "_CHECK_SECONDS", 0.01)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make_certificate(cert, key)
    server = StreamingServer(StreamingConfig(tls_cert=cert, tls_key=key))
    await server.start()
    yield server, cert, key
    await server.stop()


async def greets(server: StreamingServer, trusted: str) -> None:
    """Hear hello from a server whose certificate is this one."""
    url = server.offer(command(says_hello))
    assert url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cadata=trusted)
    await hears_hello(SpdySession(await ask(url, SPDY, tls=trusting)))


async def test_sessions_are_served_over_tls(tls: tuple[StreamingServer, Path, Path]) -> None:
    server, cert, _ = tls
    await greets(server, cert.read_text())


async def test_changed_certificate_is_served(
    tls: tuple[StreamingServer, Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server, cert, key = tls
    old = cert.read_text()
    new = make_certificate(tmp_path / "new.cert", tmp_path / "new.key")
    (tmp_path / "new.cert").rename(cert)  # without its key, which comes a moment later
    await until(lambda: "streaming certificate not renewed" in caplog.messages)
    await greets(server, old)
    (tmp_path / "new.key").rename(key)
    await until(lambda: "streaming certificate renewed" in caplog.messages)
    await greets(server, new)
    with pytest.raises(ssl.SSLCertVerificationError):
        await greets(server, old)
    assert caplog.messages.count("streaming certificate not renewed") == 1


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_bad_tls_files_are_named(tmp_path: Path) -> None:
    missing = StreamingServer(StreamingConfig(tls_cert=tmp_path / "no", tls_key=tmp_path / "none"))
    with pytest.raises(InvalidArgument, match=r"streaming\.tls_cert, streaming\.tls_key"):
        await missing.start()


async def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match=f"listen on 127.0.0.1 port {port}"):
            await StreamingServer(StreamingConfig(port=port)).start()


async def test_the_url_of_an_ipv6_address_has_brackets() -> None:
    server = StreamingServer(StreamingConfig(address="::1"))
    await server.start()
    try:
        url = server.offer(command(says_hello))
        assert url.startswith("http://[::1]:")
        await hears_hello(await spdy(url))
    finally:
        await server.stop()
