"""Port-forward with real clients' protocols: SPDY, SPDY in a WebSocket, and ports over a WebSocket."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from spdyclient import RST_STREAM, control
from streamclient import SpdySession, spdy, tunnel, websocket

from noderuntime.core.errors import Internal
from noderuntime.core.sessions import Forward, Stdio
from noderuntime.edge.streaming.server import StreamingServer
from noderuntime.node.host.base import STDOUT

Peer = Callable[[Stdio], Awaitable[None]]


class Pod:
    """A pod that listens on every port but 1."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.ports: list[int] = []
        self.left = asyncio.Event()

    async def serve(self, port: int, stdio: Stdio) -> None:
        if port == 1:
            raise Internal("connect to port 1: 127.0.0.1: Connection refused")
        self.ports.append(port)
        try:
            await self._peer(stdio)
        finally:
            self.left.set()

    def forward(self, *ports: int) -> Forward:
        return Forward("pod1", ports, self.serve)


async def answers_at_the_end(stdio: Stdio) -> None:
    """Send the received data back, but only after its end."""
    heard = b""
    while data := await stdio.read():
        heard += data
    await stdio.write(STDOUT, b"echo " + heard)


async def echoes(stdio: Stdio) -> None:
    while data := await stdio.read():
        await stdio.write(STDOUT, data)


async def is_deaf(_stdio: Stdio) -> None:
    await asyncio.Event().wait()


async def pair(client: SpdySession, port: int, request: str = "0") -> tuple[int, int]:
    """Open both streams as kubectl does and return (data, error)."""
    error = await client.open(streamtype="error", port=str(port), requestid=request)
    await client.send(error, b"", fin=True)
    return await client.open(streamtype="data", port=str(port), requestid=request), error


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_both_ends_of_a_connection_close_in_turn(server: StreamingServer, tunnelled: bool) -> None:
    pod = Pod(answers_at_the_end)
    url = server.offer(pod.forward())
    async with await (tunnel(url) if tunnelled else spdy(url, "portforward.k8s.io")) as client:
        data, error = await pair(client, 8080)
        await client.send(data, b"question")
        await client.send(data, b"", fin=True)
        await client.until(lambda: {data, error} <= client.finished)
        assert client.received[data] == b"echo question"
        assert client.received[error] == b""
    assert pod.ports == [8080]


async def test_many_connections_are_served_in_parallel(server: StreamingServer) -> None:
    pod = Pod(echoes)
    async with await spdy(server.offer(pod.forward()), "portforward.k8s.io") as client:
        opened = [await pair(client, 8000 + number, str(number)) for number in range(50)]
        for data, _ in opened:
            await client.send(data, f"words for {data}".encode())
        for data, _ in opened:
            await client.receives(data, f"words for {data}".encode())
            await client.send(data, b"", fin=True)
        await client.until(lambda: {data for data, _ in opened} <= client.finished)
    assert sorted(pod.ports) == [8000 + number for number in range(50)]


async def test_ended_connections_do_not_count_for_the_limit(server: StreamingServer) -> None:
    pod = Pod(answers_at_the_end)
    async with await spdy(server.offer(pod.forward()), "portforward.k8s.io") as client:
        for number in range(600):
            data, error = await pair(client, 80, str(number))
            await client.send(data, b"", fin=True)
            await client.until(lambda data=data, error=error: {data, error} <= client.finished)
    assert len(pod.ports) == 600


async def test_the_oldest_clients_send_no_request_id(server: StreamingServer) -> None:
    pod = Pod(answers_at_the_end)
    async with await spdy(server.offer(pod.forward()), "") as client:
        await client.open(streamtype="error", port="80")
        data = await client.open(streamtype="data", port="80")
        await client.send(data, b"", fin=True)
        await client.receives(data, b"echo ")


async def test_a_closed_port_is_reported_on_the_error_stream(server: StreamingServer) -> None:
    pod = Pod(echoes)
    async with await spdy(server.offer(pod.forward()), "portforward.k8s.io") as client:
        data, error = await pair(client, 1)
        await client.until(lambda: error in client.finished)
        words = b"error forwarding port 1 to pod pod1: connect to port 1: 127.0.0.1: Connection refused"
        assert client.received[error] == words
        data, error = await pair(client, 2)
        await client.send(data, b"others go on")
        await client.receives(data, b"others go on")


@pytest.mark.parametrize(
    "headers",
    [
        {"streamtype": "data"},
        {"streamtype": "data", "port": "0"},
        {"streamtype": "data", "port": "65536"},
        {"streamtype": "data", "port": "-1"},
        {"streamtype": "data", "port": "٣"},
        {"streamtype": "stdin", "port": "80"},
        {"port": "80"},
    ],
)
async def test_invalid_streams_are_reset(server: StreamingServer, headers: dict[str, str]) -> None:
    pod = Pod(echoes)
    async with await spdy(server.offer(pod.forward()), "portforward.k8s.io") as client:
        assert await client.open(**headers) in client.was_reset
        data, _ = await pair(client, 80)
        await client.send(data, b"others go on")
        await client.receives(data, b"others go on")


async def test_a_second_stream_of_the_same_kind_is_reset(server: StreamingServer) -> None:
    async with await spdy(server.offer(Pod(echoes).forward()), "portforward.k8s.io") as client:
        await client.open(streamtype="data", port="80", requestid="7")
        assert await client.open(streamtype="data", port="80", requestid="7") in client.was_reset


async def test_a_reset_by_the_client_closes_the_connection(server: StreamingServer) -> None:
    pod = Pod(echoes)
    async with await spdy(server.offer(pod.forward()), "portforward.k8s.io") as client:
        data, error = await pair(client, 80)
        await client.send(data, b"some")
        await client.receives(data, b"some")
        await client.write_frames(control(RST_STREAM, struct.pack(">II", data, 5)))
        await client.until(lambda: error in client.finished)
    assert pod.left.is_set()


async def test_reset_streams_without_a_pair_are_dropped(server: StreamingServer) -> None:
    pod = Pod(echoes)
    async with await spdy(server.offer(pod.forward()), "portforward.k8s.io") as client:
        for _ in range(1000):
            error = await client.open(streamtype="error", port="80", requestid="same")
            assert error in client.answered
            await client.write_frames(control(RST_STREAM, struct.pack(">II", error, 5)))


async def test_a_disconnect_closes_the_clients_connections(server: StreamingServer) -> None:
    pod = Pod(echoes)
    async with await spdy(server.offer(pod.forward()), "portforward.k8s.io") as client:
        data, _ = await pair(client, 80)
        await client.send(data, b"some")
        await client.receives(data, b"some")
    async with asyncio.timeout(10):
        await pod.left.wait()


async def test_a_pod_that_does_not_read_slows_the_client(server: StreamingServer) -> None:
    async with await spdy(server.offer(Pod(is_deaf).forward()), "portforward.k8s.io") as client:
        data, _ = await pair(client, 80)
        sent = 0
        with suppress(TimeoutError):
            while sent < 64 << 20:
                async with asyncio.timeout(1):
                    await client.send(data, bytes(1 << 16))
                sent += 1 << 16
        assert sent < 64 << 20


async def test_websocket_serves_the_ports_of_the_request(server: StreamingServer) -> None:
    pod = Pod(echoes)
    async with await websocket(server.offer(pod.forward(80, 1, 443)), "v4.channel.k8s.io") as client:
        for number, port in enumerate((80, 80, 1, 1, 443, 443)):
            await client.receives(number, struct.pack("<H", port))
        await client.send(0, b"to the first")
        await client.send(4, b"to the third")
        await client.receives(0, b"to the first")
        await client.receives(4, b"to the third")
        await client.receives(3, b"error forwarding port 1")


async def test_websocket_without_ports_supports_only_the_tunnel(server: StreamingServer) -> None:
    with pytest.raises(AssertionError, match="403"):
        await websocket(server.offer(Pod(echoes).forward()), "v4.channel.k8s.io")
