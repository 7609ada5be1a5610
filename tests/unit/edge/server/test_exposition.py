"""``GET /metrics`` and nothing else."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from noderuntime.edge.server.exposition import serve_metrics

BODY = b"a 1\n" * 100_000


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    port = _free_port()
    async with serve_metrics(("127.0.0.1", port), lambda: BODY):
        yield port


def _get(port: int, path: str, method: str = "GET") -> tuple[int, bytes, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), ""


async def test_get_metrics_returns_the_text(port: int) -> None:
    status, body, kind = await asyncio.to_thread(_get, port, "/metrics?x=1")
    assert (status, body) == (200, BODY)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 404), ("/metricsx", "GET", 404), ("/metrics", "POST", 405)]
)
async def test_other_paths_and_methods_are_refused(port: int, path: str, method: str, status: int) -> None:
    assert (await asyncio.to_thread(_get, port, path, method))[0] == status


@pytest.mark.parametrize(
    "sent", [b"", b"GET /metrics", b"\x00" * 20_000, b"GET /metrics\r\n" + b"a: b\r\n" * 9999]
)
async def test_malformed_request_is_disconnected(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    writer.write_eof()
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_silent_clients_are_disconnected_after_a_while(port: int) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 5) == b"", "one too many is sent away at once"
    writer.close()
    for _, one in silent:
        one.close()
        await one.wait_closed()
    async with asyncio.timeout(5):
        while (await asyncio.to_thread(_try, port)) != 200:
            await asyncio.sleep(0)


def _try(port: int) -> int:
    try:
        return _get(port, "/metrics")[0]
    except OSError:
        return 0


async def test_address_in_use_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with serve_metrics(("127.0.0.1", taken.getsockname()[1]), lambda: BODY):
            assert "metrics are not served" in caplog.messages


async def test_without_address_no_port_is_bound() -> None:
    before = len(asyncio.all_tasks())
    async with serve_metrics(None, lambda: BODY):
        assert len(asyncio.all_tasks()) == before
