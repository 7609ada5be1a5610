"""Exec, attach and port-forward of misbehaving clients leave nothing in the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from streamclient import SpdySession, ask, spdy, websocket

from noderuntime.cri.v1 import api_pb2

HANDLERS = ["runc", "gvisor"]
LANE_THREADS = 10
"""The threads of the lanes files, cgroups and images: each starts when it is first needed, and stays."""
SPDY = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}


@dataclass(frozen=True)
class Held:
    """The resources of a process."""

    descriptors: int
    threads: int
    children: int

    @staticmethod
    def by(pid: int) -> Held:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
        return Held(len(os.listdir(f"/proc/{pid}/fd")), len(tasks), len(children))


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def settles(daemon: Daemon, before: Held) -> None:
    """Wait until the daemon holds no more resources than before."""

    def back() -> bool:
        now = Held.by(daemon.pid)
        return (
            now.descriptors <= before.descriptors
            and now.children <= before.children
            and now.threads <= before.threads + LANE_THREADS
        )

    await asyncio.to_thread(wait_until, back, f"{before} again, not {Held.by(daemon.pid)}")
    assert list((daemon.run / "exec").iterdir()) == []


@pytest.fixture(params=HANDLERS)
def container(request: pytest.FixtureRequest, kubelet: Kubelet) -> str:
    """A container that idles."""
    config = kubelet.pod_config()
    pod = kubelet.run(config, request.param)
    return kubelet.run_container(pod, config, "main", "exec sleep 1000")


class Execs:
    """Makes execs as the kubelet does."""

    def __init__(self, kubelet: Kubelet, container: str) -> None:
        self._kubelet = kubelet
        self._container = container

    async def url(self, *argv: str, **fields: object) -> str:
        request = api_pb2.ExecRequest(container_id=self._container, cmd=argv, stdout=True)
        for name, value in fields.items():
            setattr(request, name, value)
        return (await asyncio.to_thread(self._kubelet.runtime.Exec, request, timeout=30)).url

    async def begin(self, *argv: str, **fields: object) -> tuple[SpdySession, int]:
        """Start a command; return the client and the ID of its stdout stream."""
        client = await (await spdy(await self.url(*argv, **fields))).__aenter__()
        names = [
            "error",
            *(name for name in ("stdin", "stdout", "stderr") if name == "stdout" or name in fields),
        ]
        if fields.get("tty"):
            names.append("resize")
        opened = {name: await client.open(streamtype=name) for name in names}
        return client, opened["stdout"]

    async def run(self, *argv: str) -> tuple[bytes, bytes]:
        """Run a command; return its output and status."""
        client, stdout = await self.begin(*argv)
        await client.until(lambda: client.gone_away)
        await client.leave()
        return client.received.get(stdout, b""), client.received[1]


@pytest.fixture
def execs(kubelet: Kubelet, container: str) -> Execs:
    return Execs(kubelet, container)


async def test_a_thousand_execs_in_sequence_leak_nothing(daemon: Daemon, execs: Execs) -> None:
    for _ in range(5):
        await execs.run("true")
    before, memory = Held.by(daemon.pid), resident(daemon.pid)
    for number in range(1000):
        output, status = await execs.run("echo", str(number))
        assert (output, json.loads(status)["status"]) == (f"{number}\n".encode(), "Success")
    await settles(daemon, before)
    assert resident(daemon.pid) - memory < 16 << 20


async def test_fifty_parallel_execs_leak_nothing(daemon: Daemon, execs: Execs) -> None:
    await asyncio.gather(*(execs.run("true") for _ in range(10)))
    before = Held.by(daemon.pid)
    results = await asyncio.gather(*(execs.run("sh", "-c", f"sleep 0.5; echo {n}") for n in range(50)))
    assert [int(output) for output, _ in results] == list(range(50))
    await settles(daemon, before)


async def test_disconnects_during_a_session_leak_nothing(daemon: Daemon, execs: Execs) -> None:
    await execs.run("true")
    before = Held.by(daemon.pid)
    for fields in ({}, {"stdin": True}, {"stdin": True, "tty": True}):
        begun = await asyncio.gather(
            *(execs.begin("sh", "-c", "echo ready; sleep 60", **fields) for _ in range(10))
        )
        for client, stdout in begun[:5]:
            await client.receives(stdout, b"ready")
        for client, _ in begun:
            await client.leave()
    await settles(daemon, before)


async def test_unused_sessions_expire(daemon: Daemon, execs: Execs) -> None:
    before = Held.by(daemon.pid)
    for _ in range(200):
        await execs.url("true")
    await settles(daemon, before)


async def test_a_client_that_does_not_read_is_bounded(daemon: Daemon, execs: Execs) -> None:
    await execs.run("true")
    before, memory = Held.by(daemon.pid), resident(daemon.pid)
    deaf = []
    for _ in range(5):
        client, stdout = await execs.begin("sh", "-c", f"yes {'x' * 1000}")
        await client.receives(stdout, b"x")
        client.response.reader._transport.pause_reading()
        deaf.append(client)
    await asyncio.sleep(2)
    assert resident(daemon.pid) - memory < 24 << 20
    began = time.monotonic()
    assert (await execs.run("echo", "others go on"))[0] == b"others go on\n"
    assert time.monotonic() - began < 5
    for client in deaf:
        await client.leave()
    await settles(daemon, before)


async def test_a_program_that_does_not_read_is_bounded(daemon: Daemon, execs: Execs) -> None:
    await execs.run("true")
    before, memory = Held.by(daemon.pid), resident(daemon.pid)
    client, _ = await execs.begin("sleep", "60", stdin=True)
    stdin = 3
    with suppress(TimeoutError):
        async with asyncio.timeout(3):
            while True:
                await client.send(stdin, bytes(1 << 16))
    assert resident(daemon.pid) - memory < 16 << 20
    await client.leave()
    await settles(daemon, before)


async def test_a_stalled_attach_does_not_block_the_exit(daemon: Daemon, kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    loud = kubelet.run_container(pod, config, "loud", "exec yes")
    request = api_pb2.AttachRequest(container_id=loud, stdout=True, stderr=True)
    url = (await asyncio.to_thread(kubelet.runtime.Attach, request, timeout=30)).url
    async with await websocket(url, "v5.channel.k8s.io") as client:
        await client.receives(1, b"y")
        client.response.reader._transport.pause_reading()
        stop = api_pb2.StopContainerRequest(container_id=loud, timeout=0)
        await asyncio.to_thread(kubelet.runtime.StopContainer, stop, timeout=60)
        ended = await asyncio.to_thread(kubelet.status, loud)
        assert ended.state == api_pb2.CONTAINER_EXITED


async def test_tokens_cannot_be_guessed_or_used_again(daemon: Daemon, execs: Execs) -> None:
    url = await execs.url("true")
    base, _, token = url.rpartition("/")
    for guess in (token[:-1], token[:-1] + "A", token.swapcase(), "", "*", "%2e%2e", token + "/"):
        if guess != token:
            assert (await ask(f"{base}/{guess}", SPDY)).status == 404
    client = await spdy(url)
    assert (await ask(url, SPDY)).status == 404
    await client.__aenter__()
    await client.leave()


Attack = Callable[[str], Awaitable[None]]


async def _floods_streams(url: str) -> None:
    async with await spdy(url) as client:
        for _ in range(5000):
            await client.write(client.client.open({"streamtype": "stdout"}))


async def _claims_huge_frames(url: str) -> None:
    async with await websocket(url, "v5.channel.k8s.io") as client:
        await client.write(b"\x82\xff" + (2 << 30).to_bytes(8, "big") + bytes(4))
        for _ in range(64):
            await client.write(bytes(1 << 20))


async def _sends_a_compression_bomb(url: str) -> None:
    async with await spdy(url) as client:
        bomb = client.client.compressed(bytes(40 << 20))
        await client.write(b"\x80\x03\x00\x01\x00" + (10 + len(bomb)).to_bytes(3, "big") + bytes(10) + bomb)
        await client.ends()


async def _pings_and_never_listens(url: str) -> None:
    async with await spdy(url) as client:
        client.response.reader._transport.pause_reading()
        try:
            async with asyncio.timeout(3):
                while True:
                    await client.write(b"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01" * 5000)
        except (TimeoutError, ConnectionError):
            return


@pytest.mark.parametrize(
    "attack", [_floods_streams, _claims_huge_frames, _sends_a_compression_bomb, _pings_and_never_listens]
)
async def test_hostile_clients_are_bounded(daemon: Daemon, execs: Execs, attack: Attack) -> None:
    await execs.run("true")
    before, memory = Held.by(daemon.pid), resident(daemon.pid)
    await attack(await execs.url("sleep", "1"))
    assert (await execs.run("echo", "still here"))[0] == b"still here\n"
    assert resident(daemon.pid) - memory < 16 << 20
    await settles(daemon, before)
