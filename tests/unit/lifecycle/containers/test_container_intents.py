"""Containers whose CreateContainer a killed daemon did not finish."""

import asyncio

import pytest
from fakes import container_config, pod_config
from restarts import is_cut_off, kill_daemon, restart_daemon, state

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox
from noderuntime.lifecycle.recovery import recover, tear_down


async def unfinished_container(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    node.world.hold["create"] = asyncio.Event()
    call = asyncio.create_task(create_container(node.parts, sandbox, container_config()))
    await node.world.held.wait()
    await kill_daemon(node)
    assert is_cut_off(call)
    await node.restart()
    await recover(node.parts, "boot-1")
    return sandbox


@pytest.mark.parametrize("step", ["prepare", "create"])
async def test_recover_undoes_an_unfinished_container(node, step):
    await recover(node.parts, "boot-1")
    logs = node.directory / "logs"
    sandbox = await run_pod_sandbox(node.parts, pod_config(log_directory=str(logs)), "runc")
    before = node.world.left()
    node.world.hold[step] = asyncio.Event()
    call = asyncio.create_task(create_container(node.parts, sandbox, container_config(log_path="0.log")))
    await node.world.held.wait()
    await restart_daemon(node)
    assert is_cut_off(call)
    assert node.world.left() == before
    assert not list(logs.iterdir())
    assert not list(node.parts.ledger.containers)
    assert not list(node.parts.paths.containers.iterdir())
    assert await create_container(node.parts, sandbox, container_config())


async def test_name_of_a_container_intent_is_free_before_the_teardown(node):
    sandbox = await unfinished_container(node)
    container = await create_container(node.parts, sandbox, container_config())
    assert node.world.snapshots == {container}
    await tear_down(node.parts)
    assert (await state(node, container)).state == api_pb2.CONTAINER_CREATED


async def test_stop_undoes_a_container_intent(node):
    sandbox = await unfinished_container(node)
    await stop_pod_sandbox(node.parts, sandbox)
    assert list(node.parts.ledger.containers) == []
    assert not node.world.snapshots
