"""Deaths that no call waits for."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from fakes import container_config, pod_config

from noderuntime.core.errors import Internal
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.remove import remove_container
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.status import container_status
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.status import pod_sandbox_status
from noderuntime.lifecycle.supervisor import Supervisor


@pytest.fixture
async def supervised(node):
    with Supervisor(node.parts):
        yield node
    assert node.world.watching == []


async def running(node, handler="runc"):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), handler)
    container = await create_container(node.parts, sandbox, container_config())
    await start_container(node.parts, container)
    return sandbox, container


async def reported_end(node, container):
    await asyncio.sleep(0)  # the death is reported in the next turn of the loop
    await node.parts.work.drain(5)
    status = (await container_status(node.parts, container)).status
    return status.state, status.exit_code, status.reason


LOST = api_pb2.CONTAINER_EXITED, 255, "Unknown"


async def test_container_killed_with_its_monitor_is_lost(supervised):
    sandbox, container = await running(supervised)
    events = []
    listener = supervised.parts.events.listen(events.append)
    listening = asyncio.create_task(anext(listener))
    await asyncio.sleep(0)
    supervised.world.exit(container, seen=False)
    assert await reported_end(supervised, container) == LOST
    assert [(e.container_id, e.kind) for e in events] == [(container, api_pb2.CONTAINER_STOPPED_EVENT)]
    assert container not in supervised.world.runtime, "the runtime's state is deleted"
    listening.cancel()
    await remove_pod_sandbox(supervised.parts, sandbox)
    assert not supervised.left()


async def test_container_of_a_killed_monitor_is_killed(supervised):
    _, container = await running(supervised)
    supervised.world.end(supervised.world.runtime[container].monitor)
    assert await reported_end(supervised, container) == LOST
    assert container not in supervised.world.runtime


async def test_end_of_a_monitor_records_the_exit(supervised):
    _, container = await running(supervised)
    supervised.world.exit(container, 7)
    assert await reported_end(supervised, container) == (api_pb2.CONTAINER_EXITED, 7, "Error")
    assert container not in supervised.world.runtime


@pytest.mark.parametrize(("seen", "how"), [(True, (api_pb2.CONTAINER_EXITED, 1, "Error")), (False, LOST)])
@pytest.mark.parametrize("step", ["create", "start"])
async def test_end_between_two_steps_is_recorded(supervised, step, seen, how):
    supervised.world.ends_after[step] = seen
    sandbox = await run_pod_sandbox(supervised.parts, pod_config(), "runc")
    container = await create_container(supervised.parts, sandbox, container_config())
    if step == "start":
        await start_container(supervised.parts, container)
    assert await reported_end(supervised, container) == how


async def test_container_that_did_not_start_is_released(supervised):
    sandbox = await run_pod_sandbox(supervised.parts, pod_config(), "runc")
    container = await create_container(supervised.parts, sandbox, container_config())
    supervised.world.fail.add("start")
    with pytest.raises(Internal, match="start fails"):
        await start_container(supervised.parts, container)
    assert await reported_end(supervised, container) == (api_pb2.CONTAINER_EXITED, 128, "StartError")
    assert container not in supervised.world.runtime


async def test_delete_that_fails_is_repeated(supervised):
    _, container = await running(supervised)
    supervised.world.raises[f"delete {container}"] = KeyError("status")
    supervised.world.exit(container, 4)
    assert await reported_end(supervised, container) == (api_pb2.CONTAINER_EXITED, 4, "Error")
    assert container in supervised.world.runtime
    supervised.world.raises.clear()
    while not supervised.pauses.seconds:
        await asyncio.sleep(0)
    supervised.pauses.end()
    async with asyncio.timeout(5):
        while container in supervised.world.runtime:
            await asyncio.sleep(0)
    await remove_container(supervised.parts, container)


@pytest.mark.parametrize("step", ["create", "start"])
async def test_sandbox_whose_process_dies_early_never_runs(supervised, step):
    supervised.world.ends_after[step] = True
    with pytest.raises(Internal, match="ended while the sandbox was being set up"):
        await run_pod_sandbox(supervised.parts, pod_config(), "gvisor")
    assert not supervised.left()


@pytest.mark.parametrize("seen", [True, False])
async def test_sandbox_whose_process_dies_is_not_ready(supervised, seen):
    sandbox, container = await running(supervised, "gvisor")
    events = []
    listening = asyncio.create_task(anext(supervised.parts.events.listen(events.append)))
    await asyncio.sleep(0)
    supervised.world.exit(sandbox, 1, seen=seen)
    supervised.world.exit(container, 1, seen=seen)
    await reported_end(supervised, container)
    assert pod_sandbox_status(supervised.parts, sandbox).status.state == api_pb2.SANDBOX_NOTREADY
    assert {e.container_id for e in events} == {sandbox, container}
    listening.cancel()
    await remove_pod_sandbox(supervised.parts, sandbox)
    assert not supervised.left()


async def test_removed_pod_is_watched_no_longer(supervised):
    sandbox, _ = await running(supervised, "gvisor")
    assert len(supervised.world.watching) == 2
    await remove_pod_sandbox(supervised.parts, sandbox)
    assert supervised.world.watching == []


async def test_supervisor_watches_what_the_ledger_has(node):
    sandbox, container = await running(node, "gvisor")
    node.world.end(node.world.runtime[container].monitor)
    with Supervisor(node.parts):
        assert await reported_end(node, container) == LOST
        node.world.exit(sandbox, 1)
        await reported_end(node, container)
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_NOTREADY


async def test_end_is_published_even_if_no_write_succeeds(supervised):
    _, container = await running(supervised)
    with closing(sqlite3.connect(supervised.directory / "state/ledger.db")) as connection:
        connection.execute("ALTER TABLE containers RENAME TO full")
        events = []
        listening = asyncio.create_task(anext(supervised.parts.events.listen(events.append)))
        await asyncio.sleep(0)
        supervised.world.exit(container, 3)
        assert await reported_end(supervised, container) == (api_pb2.CONTAINER_EXITED, 3, "Error")
        connection.execute("ALTER TABLE full RENAME TO containers")
    assert [event.container_id for event in events] == [container]
    listening.cancel()
