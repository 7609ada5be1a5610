"""Stops that are repeated, fail, or have no effect."""

from __future__ import annotations

import asyncio
import signal
import sqlite3

import pytest
from fakes import container_config, pod_config

from noderuntime.core.errors import DeadlineExceeded, FailedPrecondition, HostError, Internal
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.exits import settle
from noderuntime.lifecycle.containers.remove import remove_container
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.status import container_status
from noderuntime.lifecycle.containers.stop import stop_container
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox


@pytest.fixture
def handler():
    return "runc"


@pytest.fixture
async def sandbox(node, handler):
    return await run_pod_sandbox(node.parts, pod_config(), handler)


@pytest.fixture
async def running(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config())
    await start_container(node.parts, container)
    return container


async def status(node, container):
    return (await container_status(node.parts, container)).status


def sent(node):
    return [signo for _, signo in node.world.signals]


async def test_each_stop_sends_the_signal_and_the_shortest_wins(node, running):
    node.world.stubborn.add(running)
    patient = [asyncio.create_task(stop_container(node.parts, running, 3600)) for _ in range(2)]
    while len(node.world.signals) < 2:
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await stop_container(node.parts, running, 0.05)
        await asyncio.gather(*patient)
    assert sent(node) == [signal.SIGTERM, signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]


async def test_stop_whose_client_has_left_does_not_kill(node, running):
    node.world.stubborn.add(running)
    stopping = asyncio.create_task(stop_container(node.parts, running, 0.05))
    while not node.world.signals:
        await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    await node.parts.work.drain(5)
    assert sent(node) == [signal.SIGTERM]
    assert (await status(node, running)).state == api_pb2.CONTAINER_RUNNING


async def test_stop_whose_signal_failed_sends_it_again(node, running):
    node.world.fail.add("kill")
    with pytest.raises(Internal, match="kill fails"):
        await stop_container(node.parts, running, 10)
    assert node.parts.ledger.containers.get(running).stopping_at > 0
    node.world.fail.clear()
    await node.restart()
    await stop_container(node.parts, running, 10)
    assert sent(node) == [signal.SIGTERM]
    assert (await status(node, running)).exit_code == 128 + signal.SIGTERM


@pytest.mark.parametrize(("timeout", "fails"), [(0, True), (10, False)], ids=["kill failed", "only asked"])
async def test_oom_kill_is_reported_unless_we_sent_sigkill(node, running, timeout, fails):
    node.world.stubborn.add(running)
    if fails:
        node.world.fail.add(f"kill {running}")
        with pytest.raises(Internal):
            await stop_container(node.parts, running, timeout)
        node.world.fail.clear()
    else:
        stopping = asyncio.create_task(stop_container(node.parts, running, timeout))
        while not node.world.signals:
            await asyncio.sleep(0)
    node.world.oom_kills["/kubepods/pod-web"] = 1
    node.world.exit(running, 137)
    await settle(node.parts, node.parts.ledger.containers.get(running))
    assert (await status(node, running)).reason == "OOMKilled"
    if not fails:
        await stopping


async def test_end_during_our_sigkill_is_not_an_oom_kill(node, running):
    node.world.hold["killed"] = asyncio.Event()
    node.world.oom_kills["/kubepods/pod-web"] = 1
    stopping = asyncio.create_task(stop_container(node.parts, running, 0))
    await node.world.held.wait()
    recording = asyncio.create_task(settle(node.parts, node.parts.ledger.containers.get(running)))
    await asyncio.wait([recording], timeout=0.05)
    assert not recording.done()
    node.world.hold.pop("killed").set()
    await asyncio.gather(stopping, recording)
    assert (await status(node, running)).reason == "Error"


@pytest.mark.parametrize("handler", ["runc", "gvisor"])
async def test_failed_stop_names_the_state_and_is_repeated(node, sandbox, running, handler):
    process = node.world.runtime[running].process
    node.world.stuck.add(process)
    with pytest.raises(DeadlineExceeded) as failure:
        await stop_container(node.parts, running, 0)
    processes = [process] if handler == "runc" else [process, node.world.runtime[sandbox].process]
    states = "; ".join(f"process {one.pid} is in state D, in nfs_wait" for one in processes)
    assert str(failure.value) == f"container {running} did not end 30 s after SIGKILL: {states}"
    assert (await status(node, running)).state == api_pb2.CONTAINER_RUNNING
    node.world.stuck.clear()
    await stop_container(node.parts, running, 0)
    assert sent(node) == [signal.SIGKILL, signal.SIGKILL]
    assert (await status(node, running)).exit_code == 137


async def test_sandbox_process_that_does_not_end_is_named(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "gvisor")
    process = node.world.runtime[sandbox].process
    node.world.stuck.add(process)
    with pytest.raises(DeadlineExceeded, match=f"sandbox {sandbox} .* process {process.pid} is in state D"):
        await stop_pod_sandbox(node.parts, sandbox)
    node.world.stuck.clear()
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_monitor_that_hangs_is_killed_and_the_code_is_lost(node, running):
    node.world.stuck.add(node.world.runtime[running].monitor)
    await stop_container(node.parts, running, 0)
    now = await status(node, running)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 255, "Unknown")
    assert node.world.processes == {}


async def test_failed_start_is_killed_in_the_background(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config())
    node.world.fail |= {"start", "kill", "delete"}
    with pytest.raises(Internal, match="start fails"):
        await start_container(node.parts, container)
    await node.parts.work.drain(5)
    assert len(node.world.processes) == 2
    node.world.fail -= {"kill", "delete"}
    async with asyncio.timeout(5):
        while not node.pauses.seconds:
            await asyncio.sleep(0)
        node.pauses.end()
        while not node.parts.ledger.containers.get(container).released_at:
            await asyncio.sleep(0)
    assert node.world.processes == {}


async def test_failed_start_that_could_not_be_killed_is_killed_by_a_stop(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config())
    node.world.fail |= {"start", "kill", "delete"}
    with pytest.raises(Internal, match="start fails"):
        await start_container(node.parts, container)
    assert (await status(node, container)).reason == "StartError"
    for stop in (stop_container(node.parts, container, 0), stop_pod_sandbox(node.parts, sandbox)):
        with pytest.raises(Internal, match="kill fails"):
            await stop
    node.world.fail.clear()
    await stop_pod_sandbox(node.parts, sandbox)
    assert node.world.processes == {}
    assert (await status(node, container)).reason == "StartError"


async def test_container_that_is_being_stopped_is_not_started(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config())
    node.world.fail.add("kill")
    with pytest.raises(Internal):
        await stop_container(node.parts, container, 0)
    with pytest.raises(FailedPrecondition, match="is being stopped"):
        await start_container(node.parts, container)


async def test_removal_reports_a_kill_that_fails_and_is_repeated(node, running):
    node.world.fail.add("kill")
    with pytest.raises(Internal, match="kill fails"):
        await remove_container(node.parts, running)
    assert (await status(node, running)).state == api_pb2.CONTAINER_RUNNING
    node.world.fail.clear()
    await remove_container(node.parts, running)
    assert node.world.processes == {}


@pytest.mark.parametrize("handler", ["gvisor"])
async def test_containers_that_do_not_end_die_with_their_sandbox(node, sandbox, running):
    node.world.fail.add(f"kill {running}")
    await stop_pod_sandbox(node.parts, sandbox)
    now = await status(node, running)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 137, "Error")
    node.world.fail.clear()
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_ledger_that_cannot_be_written_does_not_prevent_a_kill(node, running):
    await node.parts.ledger.set_meta("x", "y")
    connection = sqlite3.connect(node.directory / "state/ledger.db")
    with connection:
        connection.execute("ALTER TABLE containers RENAME TO away")
    connection.close()
    with pytest.raises(HostError, match="writing the ledger"):
        await stop_container(node.parts, running, 0)
    assert sent(node) == [signal.SIGKILL]
    assert node.world.processes == {}
