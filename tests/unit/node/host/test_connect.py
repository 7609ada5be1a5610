"""Connections to localhost, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

import pytest

from noderuntime.core.errors import HostError
from noderuntime.node.host.base import STDOUT
from noderuntime.node.host.linux import LinuxHost


@pytest.fixture
def host() -> LinuxHost:
    return LinuxHost()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
async def test_each_direction_ends_independently(host: LinuxHost, family: int, address: str) -> None:
    with socket.create_server((address, 0), family=family) as listener:
        connection = await host.connect(None, listener.getsockname()[1])
        accepted, _ = listener.accept()
        with accepted:
            await connection.write(b"question")
            connection.end_input()
            accepted.settimeout(10)
            assert (accepted.recv(100), accepted.recv(100)) == (b"question", b"")
            accepted.sendall(b"answer")
        assert await connection.read() == (STDOUT, b"answer")
        assert await connection.read() == (STDOUT, b"")
        await connection.close()


async def test_reset_connection_has_ended(host: LinuxHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = await host.connect(None, listener.getsockname()[1])
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        assert await connection.read() == (STDOUT, b"")
        with pytest.raises(BrokenPipeError):
            await connection.write(b"x")
        connection.end_input()
        await connection.close()


async def test_write_waits_while_the_peer_does_not_read(host: LinuxHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = await host.connect(None, listener.getsockname()[1])
        accepted, _ = listener.accept()
        with accepted:
            writing = asyncio.create_task(connection.write(bytes(64 << 20)))
            done, _ = await asyncio.wait([writing], timeout=0.5)
            assert not done
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        await connection.close()


async def test_connect_without_a_listener_reports_both_addresses(host: LinuxHost) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(HostError, match=r"127\.0\.0\.1: Connection refused, ::1: Connection refused"):
            await host.connect(None, bound.getsockname()[1])
    assert len(os.listdir("/proc/self/fd")) <= before
