"""Containers that never ran: the runtime failed to create or to start them."""

import pytest
from fakes import container_config, pod_config

from noderuntime.core.errors import FailedPrecondition, Internal, ToolError
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers import exits
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.remove import remove_container
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.status import container_status
from noderuntime.lifecycle.containers.stop import stop_container
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox

NO_COMMAND = "runc create failed with exit status 1: exec /no/such: no such file"


@pytest.fixture
async def sandbox(node):
    return await run_pod_sandbox(node.parts, pod_config(log_directory=str(node.directory / "logs")), "runc")


async def status(node, container):
    return (await container_status(node.parts, container)).status


async def test_failed_start_is_a_start_error(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config())
    node.world.fail.add("start")
    with pytest.raises(Internal, match="start fails"):
        await start_container(node.parts, container)
    await exits.settle(node.parts, node.parts.ledger.containers.get(container))
    now = await status(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 128, "StartError")
    assert (now.message, now.started_at) == ("start fails", 0)
    with pytest.raises(FailedPrecondition, match="CONTAINER_EXITED"):
        await start_container(node.parts, container)
    await remove_container(node.parts, container)
    await stop_pod_sandbox(node.parts, sandbox)
    assert not node.world.left()


@pytest.fixture
async def unstartable(node, sandbox):
    node.world.raises["create app"] = ToolError("runc", "create", 1, "exec /no/such: no such file")
    return await create_container(node.parts, sandbox, container_config(log_path="0.log"))


async def test_failed_create_in_the_runtime_is_a_start_error(node, unstartable):
    now = await status(node, unstartable)
    assert (now.state, now.finished_at) == (api_pb2.CONTAINER_CREATED, 0)
    assert not {"runtime", "processes", "exits"} & node.world.left().keys()
    with pytest.raises(Internal, match="exec /no/such: no such file"):
        await start_container(node.parts, unstartable)
    now = await status(node, unstartable)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 128, "StartError")
    assert (now.message, now.started_at) == (NO_COMMAND, 0)
    assert now.finished_at >= now.created_at
    with pytest.raises(FailedPrecondition, match="CONTAINER_EXITED"):
        await start_container(node.parts, unstartable)


async def test_unstartable_container_is_removed_completely(node, sandbox, unstartable):
    await remove_container(node.parts, unstartable)
    await stop_pod_sandbox(node.parts, sandbox)
    assert not node.world.left()


@pytest.mark.parametrize("of", ["container", "pod"])
async def test_stop_ends_an_unstartable_container(node, sandbox, unstartable, of):
    if of == "pod":
        await stop_pod_sandbox(node.parts, sandbox)
    else:
        await stop_container(node.parts, unstartable, 30)
    now = await status(node, unstartable)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 128, "StartError")
    assert now.message == NO_COMMAND
