"""Exec and attach between a client and what runs, on a fake node."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeExecutor, FakeMonitor, Node, container_config, pod_config
from fakesessions import FakeClient, FakeConversation
from fakeworld import FakeHost

from noderuntime.core.errors import FailedPrecondition, HostError, Internal, InvalidArgument, NotFound
from noderuntime.core.sessions import Streams
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.attach import attach_session
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.exec import exec_session
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.stop import stop_container
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.node.host.base import STDERR, STDOUT, ProcessRef


@pytest.fixture
async def pod(node: Node) -> str:
    return await run_pod_sandbox(node.parts, pod_config(), "runc")


async def start(node: Node, pod: str, **fields: object) -> str:
    container = await create_container(node.parts, pod, container_config(**fields))
    await start_container(node.parts, container)
    return container


@pytest.fixture
async def running(node: Node, pod: str) -> str:
    return await start(node, pod)


def program(node: Node) -> FakeConversation:
    executor = node.parts.executors["runc"]
    assert isinstance(executor, FakeExecutor)
    return executor.program


def attached(node: Node) -> FakeConversation:
    monitor = node.parts.monitor
    assert isinstance(monitor, FakeMonitor)
    return monitor.conversation


def exec_request(container: str, **fields: object) -> api_pb2.ExecRequest:
    return api_pb2.ExecRequest(container_id=container, cmd=["app"], stdout=True, **fields)


def attach_request(container: str, **fields: object) -> api_pb2.AttachRequest:
    return api_pb2.AttachRequest(container_id=container, stdout=True, **fields)


async def test_exec_relays_both_directions_and_the_status(node: Node, running: str) -> None:
    client, program_ = FakeClient(), program(node)
    program_.code = 5
    session = exec_session(node.parts, exec_request(running, stdin=True, stderr=True))
    assert session.streams == Streams(stdin=True, stdout=True, stderr=True, tty=False)
    ending = asyncio.create_task(session.run(client))
    client.input.put_nowait(b"word")
    await client.receives((STDOUT, b"echo word"))
    program_.output.put_nowait((STDERR, b"oops"))
    client.input.put_nowait(b"")
    await client.receives((STDOUT, b"echo word"), (STDERR, b"oops"))
    program_.end()
    assert await ending == 5
    assert program_.input_ended
    assert program_.closed


async def test_exec_of_a_killed_runtime_returns_137(node: Node, running: str) -> None:
    program(node).code = -9
    program(node).end()
    assert await exec_session(node.parts, exec_request(running)).run(FakeClient()) == 137


async def test_exec_on_a_terminal(node: Node, running: str) -> None:
    client, program_ = FakeClient(), program(node)
    session = exec_session(node.parts, exec_request(running, stdin=True, tty=True))
    ending = asyncio.create_task(session.run(client))
    client.resized.put_nowait((40, 100))
    client.input.put_nowait(b"word")
    await client.receives((STDOUT, b"echo word"))
    assert program_.size == (40, 100)
    executor = node.parts.executors["runc"]
    assert isinstance(executor, FakeExecutor)
    (process,) = executor.execs
    assert (process["args"], process["terminal"]) == (["app"], True)
    assert "TERM=xterm" in process["env"]
    program_.end()
    assert await ending == 0


async def test_program_that_stops_reading_does_not_block_input(node: Node, running: str) -> None:
    client, program_ = FakeClient(), program(node)
    program_.reads_nothing = True
    session = exec_session(node.parts, exec_request(running, stdin=True))
    ending = asyncio.create_task(session.run(client))
    for _ in range(3):
        client.input.put_nowait(b"more")
    client.input.put_nowait(b"")
    async with asyncio.timeout(5):
        while not program_.input_ended:
            await asyncio.sleep(0)
    program_.end()
    assert await ending == 0


async def test_disconnected_client_releases_the_program(node: Node, running: str) -> None:
    client = FakeClient()
    ending = asyncio.create_task(exec_session(node.parts, exec_request(running, stdin=True)).run(client))
    client.input.put_nowait(b"word")
    await client.receives((STDOUT, b"echo word"))
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    assert program(node).closed


async def test_failed_exec_raises_the_runtimes_error(node: Node, running: str) -> None:
    node.world.fail.add("exec")
    with pytest.raises(Internal, match="exec fails"):
        await exec_session(node.parts, exec_request(running)).run(FakeClient())


async def test_sessions_are_checked_again_at_connection(node: Node, running: str) -> None:
    for make, request in ((exec_session, exec_request), (attach_session, attach_request)):
        with pytest.raises(NotFound):
            make(node.parts, request("none"))
        with pytest.raises(InvalidArgument, match="tty and stderr"):
            make(node.parts, request(running, tty=True, stderr=True))
    with pytest.raises(InvalidArgument, match="one of stdin"):
        exec_session(node.parts, api_pb2.ExecRequest(container_id=running, cmd=["app"]))
    with pytest.raises(InvalidArgument, match="one of stdin"):
        attach_session(node.parts, api_pb2.AttachRequest(container_id=running))
    with pytest.raises(InvalidArgument, match="command to run is empty"):
        exec_session(node.parts, api_pb2.ExecRequest(container_id=running, stdout=True))
    sessions = [
        exec_session(node.parts, exec_request(running)),
        attach_session(node.parts, attach_request(running)),
    ]
    await stop_container(node.parts, running, 0)
    for session in sessions:
        with pytest.raises(FailedPrecondition, match="is not running"):
            await session.run(FakeClient())
    with pytest.raises(FailedPrecondition, match="is not running"):
        exec_session(node.parts, exec_request(running))
    with pytest.raises(FailedPrecondition, match="is not running"):
        attach_session(node.parts, attach_request(running))


@pytest.mark.parametrize(
    ("once", "tty", "ends"),
    [(False, False, True), (True, False, False), (False, True, True), (True, True, True)],
)
async def test_end_of_input_ends_attach_except_with_stdin_once(
    node: Node, pod: str, once: bool, tty: bool, ends: bool
) -> None:
    container = await start(node, pod, stdin=True, stdin_once=once, tty=tty)
    client, talk = FakeClient(), attached(node)
    session = attach_session(node.parts, attach_request(container, stdin=True, tty=tty))
    ending = asyncio.create_task(session.run(client))
    client.input.put_nowait(b"word")
    await client.receives((STDOUT, b"echo word"))
    client.input.put_nowait(b"")
    if not ends:
        async with asyncio.timeout(5):
            while not talk.input_ended:
                await asyncio.sleep(0)
        talk.output.put_nowait((STDOUT, b"still heard"))
        await client.receives((STDOUT, b"echo word"), (STDOUT, b"still heard"))
        talk.end()
    async with asyncio.timeout(5):
        assert await ending == 0
    assert talk.closed


async def test_container_without_stdin_gets_no_input(node: Node, running: str) -> None:
    client, talk = FakeClient(), attached(node)
    session = attach_session(node.parts, attach_request(running, stdin=True))
    ending = asyncio.create_task(session.run(client))
    client.input.put_nowait(b"")
    talk.output.put_nowait((STDOUT, b"words"))
    await client.receives((STDOUT, b"words"))
    assert not talk.input_ended
    talk.end()
    assert await ending == 0


async def test_attach_fails_if_the_container_cannot_be_watched(node: Node, running: str) -> None:
    class Unwatchable(FakeHost):
        async def wait(self, process: ProcessRef, *, timeout: float) -> bool:
            raise HostError("pidfd_open", 24, "Too many open files")

    attached(node)
    node.parts.host = Unwatchable(node.world)  # type: ignore[assignment]
    async with asyncio.timeout(5):
        with pytest.raises(HostError, match="Too many open files"):
            await attach_session(node.parts, attach_request(running)).run(FakeClient())


async def test_slow_client_does_not_block_an_ended_container(
    node: Node, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noderuntime.lifecycle.containers.attach._LAST_OUTPUT_SECONDS", 0.05)

    class Slow(FakeClient):
        async def write(self, stream: int, data: bytes) -> None:
            await asyncio.Event().wait()

    talk = attached(node)
    session = attach_session(node.parts, attach_request(running))
    ending = asyncio.create_task(session.run(Slow()))
    talk.output.put_nowait((STDOUT, b"words"))
    await asyncio.sleep(0.01)
    assert not ending.done()
    node.world.exit(running)
    async with asyncio.timeout(5):
        assert await ending == 0
    assert talk.closed
