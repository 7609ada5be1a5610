"""Exec and attach with all versions of the protocol, against a real server on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress

import pytest
from streamclient import SpdySession, WebSocketSession, spdy, websocket
from streamingsessions import command
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from noderuntime.core.errors import FailedPrecondition
from noderuntime.core.sessions import Stdio
from noderuntime.edge.streaming.server import StreamingServer
from noderuntime.node.host.base import STDERR, STDOUT

STDIN_C, STDOUT_C, STDERR_C, ERROR_C, RESIZE_C = range(5)
SUCCESS = {"metadata": {}, "status": "Success"}


async def prints(stdio: Stdio) -> int:
    await stdio.write(STDOUT, b"out")
    await stdio.write(STDERR, b"err")
    return 7


async def echoes(stdio: Stdio) -> int:
    while data := await stdio.read():
        await stdio.write(STDOUT, data)
    await stdio.write(STDOUT, b"<end>")
    return 0


async def fails(_stdio: Stdio) -> int:
    raise FailedPrecondition("container 1 is not running")


def exited(code: int) -> dict[str, object]:
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def streams_of(client: SpdySession, *names: str) -> dict[str, int]:
    return {name: await client.open(streamtype=name) for name in names}


@pytest.mark.parametrize("version", [1, 2, 3, 4])
async def test_spdy_sends_output_and_exit_status(server: StreamingServer, version: int) -> None:
    name = "channel.k8s.io" if version == 1 else f"v{version}.channel.k8s.io"
    async with await spdy(server.offer(command(prints)), name) as client:
        assert client.response.headers["x-stream-protocol-version"] == name
        opened = await streams_of(client, "error", "stdout", "stderr")
        await client.ends()
    assert (client.received[opened["stdout"]], client.received[opened["stderr"]]) == (b"out", b"err")
    reported = client.received[opened["error"]]
    if version == 4:
        assert json.loads(reported) == exited(7)
    else:
        assert reported == b"command terminated with non-zero exit code: exit status 7"
    assert client.finished == set(opened.values())
    assert client.gone_away


async def test_without_a_protocol_version_1_is_used(server: StreamingServer) -> None:
    async with await spdy(server.offer(command(echoes, stdin=True)), "") as client:
        assert "x-stream-protocol-version" not in client.response.headers
        opened = await streams_of(client, "error", "stdin", "stdout", "stderr")
        await client.send(opened["stdin"], b"", fin=True)
        await client.ends()
    assert client.received[opened["error"]] == b""


async def test_the_clients_first_supported_protocol_is_used(server: StreamingServer) -> None:
    wanted = "v9.channel.k8s.io, v3.channel.k8s.io, v4.channel.k8s.io"
    async with await spdy(server.offer(command(prints)), wanted) as client:
        assert client.response.headers["x-stream-protocol-version"] == "v3.channel.k8s.io"


async def test_spdy_receives_stdin_and_its_end(server: StreamingServer) -> None:
    async with await spdy(server.offer(command(echoes, stdin=True))) as client:
        opened = await streams_of(client, "error", "stdin", "stdout", "stderr")
        await client.send(opened["stdin"], b"one ")
        await client.receives(opened["stdout"], b"one ")
        await client.send(opened["stdin"], b"two ", fin=True)
        await client.ends()
    assert client.received[opened["stdout"]] == b"one two <end>"
    assert json.loads(client.received[opened["error"]]) == SUCCESS


async def test_unrequested_streams_are_reset(server: StreamingServer) -> None:
    async with await spdy(server.offer(command(prints, stderr=False))) as client:
        assert await client.open(streamtype="bogus") in client.was_reset
        first = await client.open(streamtype="stdout")
        assert await client.open(streamtype="stdout") in client.was_reset
        await client.open(streamtype="error")
        await client.ends()
    assert client.received[first] == b"out"


async def test_a_failed_session_sends_its_error(server: StreamingServer) -> None:
    async with await spdy(server.offer(command(fails))) as client:
        opened = await streams_of(client, "error", "stdout", "stderr")
        await client.ends()
    reported = json.loads(client.received[opened["error"]])
    assert (reported["status"], reported["reason"], reported["code"]) == ("Failure", "InternalError", 500)
    words = "Internal error occurred: error executing command in container: container 1 is not running"
    assert reported["message"] == words


async def sizes(stdio: Stdio) -> int:
    async for rows, columns in stdio.sizes():
        await stdio.write(STDOUT, f"{rows}x{columns} ".encode())
        if rows == 99:
            break
    return 0


async def test_terminal_sizes_reach_the_session(server: StreamingServer) -> None:
    async with await spdy(server.offer(command(sizes, tty=True))) as client:
        opened = await streams_of(client, "error", "stdout", "resize")
        await client.send(opened["resize"], b'{"Width":80,"Height":24}\n')
        await client.receives(opened["stdout"], b"24x80 ")
        await client.send(opened["resize"], b'{"Width":0,"Height":5}{"Width":81,"Heigh')
        await client.send(opened["resize"], b't":25} {"Width":82,"Height":26}')
        await client.receives(opened["stdout"], b"26x82 ")
        await client.send(opened["resize"], b'[1]{"Width":1e3,"Height":1}{"Width":99999999,"Height":99}')
        await client.ends()
    assert client.received[opened["stdout"]].endswith(b"26x82 99x65535 ")
    assert b"5x0" not in client.received[opened["stdout"]]


@pytest.mark.parametrize("text", [b"rubbish", b"[" * 10_000, b'{"Width":"80","Height":null}'])
async def test_invalid_sizes_are_ignored(server: StreamingServer, text: bytes) -> None:
    async def run(stdio: Stdio) -> int:
        return len([size async for size in stdio.sizes()])

    async with await spdy(server.offer(command(run, tty=True))) as client:
        opened = await streams_of(client, "error", "stdout", "resize")
        await client.send(opened["resize"], text, fin=True)
        await client.ends()
    assert json.loads(client.received[opened["error"]]) == SUCCESS


@pytest.mark.parametrize("version", [4, 5])
async def test_websocket_sends_output_and_exit_status(server: StreamingServer, version: int) -> None:
    async with await websocket(server.offer(command(prints)), f"v{version}.channel.k8s.io") as client:
        await client.ends()
    assert client.messages[0] == bytes((STDOUT_C,))
    assert (client.received[STDOUT_C], client.received[STDERR_C]) == (b"out", b"err")
    assert json.loads(client.received[ERROR_C]) == exited(7)
    assert client.close_code == 1000


async def test_websocket_v5_close_message_ends_stdin(server: StreamingServer) -> None:
    async with await websocket(server.offer(command(echoes, stdin=True)), "v5.channel.k8s.io") as client:
        await client.send(STDIN_C, b"one ")
        await client.receives(STDOUT_C, b"one ")
        await client.send(255, bytes((STDIN_C,)))
        await client.ends()
    assert client.received[STDOUT_C] == b"one <end>"
    assert json.loads(client.received[ERROR_C]) == SUCCESS


async def test_websocket_v4_ignores_the_close_message(server: StreamingServer) -> None:
    async with await websocket(server.offer(command(echoes, stdin=True)), "v4.channel.k8s.io") as client:
        await client.send(255, bytes((STDIN_C,)))
        await client.send(STDIN_C, b"still here")
        await client.receives(STDOUT_C, b"still here")


async def test_a_fragmented_message_is_for_one_channel(server: StreamingServer) -> None:
    async with await websocket(server.offer(command(echoes, stdin=True)), "v5.channel.k8s.io") as client:
        await client.event(BytesMessage(b"\0ab", message_finished=False))
        await client.event(BytesMessage(b"\1cd", message_finished=False))
        await client.event(Ping(b"between"))
        await client.event(BytesMessage(b"ef"))
        await client.receives(STDOUT_C, b"ab\1cdef")


async def test_data_on_invalid_channels_is_ignored(server: StreamingServer) -> None:
    async with await websocket(server.offer(command(echoes, stdin=True)), "v5.channel.k8s.io") as client:
        for channel in (STDOUT_C, ERROR_C, 17, 254):
            await client.send(channel, b"x" * 200_000)
        await client.event(BytesMessage(b""))
        await client.send(255, b"")
        await client.send(255, b"\x11")
        await client.send(STDIN_C, b"after")
        await client.receives(STDOUT_C, b"after")
    assert client.received[STDOUT_C] == b"after"


@pytest.mark.parametrize("protocol", ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"])
async def test_base64_protocols_encode_both_directions(server: StreamingServer, protocol: str) -> None:
    async with await websocket(server.offer(command(echoes, stdin=True)), protocol) as client:
        text = base64.b64encode(b"some bytes\xff").decode()
        await client.event(TextMessage(f"0{text[:5]}", message_finished=False))
        await client.event(TextMessage(text[5:]))
        await client.until(lambda: len(client.messages) > 1)
        output = b"".join(base64.b64decode(message[1:]) for message in client.messages)
        assert output == b"some bytes\xff"
        assert {message[:1] for message in client.messages} == {b"1"}
        await client.event(TextMessage("0***!"))
        await client.ends()


async def test_websocket_receives_terminal_sizes(server: StreamingServer) -> None:
    async with await websocket(server.offer(command(sizes, tty=True)), "v5.channel.k8s.io") as client:
        await client.send(RESIZE_C, b'{"Width":80,"Height":99}')
        await client.ends()
    assert client.received[STDOUT_C] == b"99x80 "


async def test_pings_are_answered(server: StreamingServer) -> None:
    async with await websocket(server.offer(command(echoes, stdin=True)), "v5.channel.k8s.io") as client:
        await client.event(Ping(b"are you there"))
        await client.send(STDIN_C, b"x")
        await client.receives(STDOUT_C, b"x")


async def waits_for_ever(left: asyncio.Event, stdio: Stdio) -> int:
    await stdio.write(STDOUT, b"here")
    try:
        await asyncio.Event().wait()
    finally:
        left.set()
    return 0


@pytest.mark.parametrize("how", ["spdy", "websocket", "websocket close", "broken"])
async def test_a_disconnect_cancels_the_session(server: StreamingServer, how: str) -> None:
    left = asyncio.Event()
    url = server.offer(command(lambda stdio: waits_for_ever(left, stdio)))
    if how.startswith("websocket"):
        async with await websocket(url, "v5.channel.k8s.io") as client:
            await client.receives(STDOUT_C, b"here")
            if how == "websocket close":
                await client.event(CloseConnection(1000))
                await client.ends()
    else:
        async with await spdy(url) as client:
            opened = await streams_of(client, "error", "stdout", "stderr")
            await client.receives(opened["stdout"], b"here")
            if how == "broken":
                await client.write(b"\xff" * 64)
                await client.ends()
    async with asyncio.timeout(10):
        await left.wait()


async def test_a_disconnect_behind_unread_data_is_detected(
    server: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noderuntime.edge.streaming.inbox._PATIENCE", 0.05)
    left = asyncio.Event()
    url = server.offer(command(lambda stdio: waits_for_ever(left, stdio), stdin=True))
    async with await spdy(url) as client:
        opened = await streams_of(client, "error", "stdin", "stdout", "stderr")
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await client.send(opened["stdin"], bytes(1 << 16))
    async with asyncio.timeout(10):
        await left.wait()


async def test_a_client_that_does_not_read_slows_the_session(server: StreamingServer) -> None:
    written = 0

    async def shouts(stdio: Stdio) -> int:
        nonlocal written
        while True:
            await stdio.write(STDOUT, bytes(1 << 16))
            written += 1 << 16

    async with await spdy(server.offer(command(shouts))) as client:
        opened = await streams_of(client, "error", "stdout", "stderr")
        await client.receives(opened["stdout"], b"\0")
        client.response.reader._transport.pause_reading()
        before = -1
        async with asyncio.timeout(10):
            while before != written:
                before = written
                await asyncio.sleep(0.2)
        assert written < 64 << 20


async def test_the_last_output_reaches_a_slow_client(server: StreamingServer) -> None:
    async def long(stdio: Stdio) -> int:
        for _ in range(64):
            await stdio.write(STDOUT, bytes(1 << 16))
        return 0

    async with await spdy(server.offer(command(long))) as client:
        opened = await streams_of(client, "error", "stdout", "stderr")
        client.response.reader._transport.pause_reading()
        await asyncio.sleep(0.5)
        client.response.reader._transport.resume_reading()
        await client.ends()
    assert len(client.received[opened["stdout"]]) == 64 << 16
    assert json.loads(client.received[opened["error"]]) == SUCCESS


async def test_missing_streams_end_the_session_at_the_timeout(
    server: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noderuntime.edge.streaming.remotecommand._CREATION_TIMEOUT", 0.1)
    async with await spdy(server.offer(command(prints))) as client:
        await client.open(streamtype="stdout")
        await client.ends()


async def test_an_idle_session_is_ended(server: StreamingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noderuntime.edge.streaming.server._IDLE", 0.2)
    left = asyncio.Event()
    url = server.offer(command(lambda stdio: waits_for_ever(left, stdio)))
    async with await websocket(url, "v5.channel.k8s.io") as client:
        await client.ends()
    assert left.is_set()


async def test_a_huge_frame_is_not_buffered(server: StreamingServer) -> None:
    async with await websocket(server.offer(command(echoes, stdin=True)), "v5.channel.k8s.io") as client:
        await client.write(b"\x82\xff" + (2 << 30).to_bytes(8, "big") + bytes(4) + b"\0first of it")
        await client.receives(STDOUT_C, b"first of it")


async def test_stop_ends_sessions_like_a_disconnect(server: StreamingServer) -> None:
    left = asyncio.Event()
    url = server.offer(command(lambda stdio: waits_for_ever(left, stdio)))
    client: WebSocketSession
    async with await websocket(url, "v5.channel.k8s.io") as client:
        await client.receives(STDOUT_C, b"here")
        await server.stop()
        assert left.is_set()
        await client.ends()
