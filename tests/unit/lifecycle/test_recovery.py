"""recover: what the next daemon records after a kill or a reboot."""

import asyncio

import pytest
from fakes import container_config, pod_config
from restarts import (
    HANDLERS,
    dead_pods,
    is_cut_off,
    of_any_type,
    pod_with_container,
    restart_daemon,
    state,
    until,
)

from noderuntime.core.errors import Internal, ToolError
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.remove import remove_container
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.pods.list import list_pod_sandboxes
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.status import pod_sandbox_status
from noderuntime.lifecycle.recovery import recover


@HANDLERS
async def test_recover_adopts_running_pods(node, handler):
    sandbox, container = await pod_with_container(node, handler)
    before = node.world.left()
    await restart_daemon(node)
    assert node.world.left() == before
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING
    status = pod_sandbox_status(node.parts, sandbox).status
    assert (status.state, status.network.ip) == (api_pb2.SANDBOX_READY, "10.0.0.2")
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_recover_reads_an_end_from_the_exit_file(node):
    sandbox, container = await pod_with_container(node)
    node.world.exit(container, 7)
    await restart_daemon(node)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 7, "Error")
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_READY


async def test_recover_ends_a_container_without_its_monitor(node):
    _, container = await pod_with_container(node)
    node.world.end(node.world.runtime[container].monitor)
    await restart_daemon(node)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 255, "Unknown")
    assert container not in node.world.runtime


@HANDLERS
@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
async def test_recover_after_a_reboot_records_all_ends(node, handler, boot):
    """With the old boot ID: a node that is itself a container."""
    sandbox, container = await pod_with_container(node, handler)
    node.world.power_cut()
    await restart_daemon(node, boot)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 255, "Unknown")
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_NOTREADY
    assert not node.world.attached, "addresses are given back at once"
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()
    assert await node.parts.ledger.meta("boot_id") == boot


async def test_recover_after_a_reboot_adopts_no_reused_pid(node):
    _, container = await pod_with_container(node)
    running = node.world.runtime[container]
    node.world.power_cut()
    node.world.processes[running.process] = asyncio.Event()
    node.world.processes[running.monitor] = asyncio.Event()
    await restart_daemon(node, "boot-2")
    assert (await state(node, container)).state == api_pb2.CONTAINER_EXITED
    assert running.process in node.world.processes


async def test_recover_records_the_end_of_a_sandbox_process(node):
    sandbox, container = await pod_with_container(node, "gvisor")
    node.world.exit(sandbox, 2)
    node.world.exit(container, 2)
    await restart_daemon(node)
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_NOTREADY
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_created_container_starts_after_a_restart(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    container = await create_container(node.parts, sandbox, container_config())
    await restart_daemon(node)
    await start_container(node.parts, container)
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING


async def test_unstartable_container_survives_a_restart(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    node.world.raises["create app"] = ToolError("runc", "create", 1, "no such file")
    container = await create_container(node.parts, sandbox, container_config())
    await restart_daemon(node)
    assert (await state(node, container)).state == api_pb2.CONTAINER_CREATED
    with pytest.raises(Internal, match="no such file"):
        await start_container(node.parts, container)
    await restart_daemon(node)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 128, "StartError")
    assert now.message == "runc create failed with exit status 1: no such file"


async def test_recover_fails_an_interrupted_start(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    container = await create_container(node.parts, sandbox, container_config())
    node.world.hold["start"] = asyncio.Event()
    call = asyncio.create_task(start_container(node.parts, container))
    await node.world.held.wait()
    await restart_daemon(node)
    assert is_cut_off(call)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 128, "StartError")
    assert container not in node.world.runtime
    await remove_container(node.parts, container)
    assert not node.world.snapshots


async def test_unavailable_image_store_does_not_stop_the_start(node):
    _, container = await pod_with_container(node)
    node.world.fail.add("keys")
    await restart_daemon(node)
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING


HANGS = ("detach", "kill", "delete", "unmount", "unpin", "remove_tree", "remove_cgroup", "release", "forget")


@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
async def test_recover_records_deaths_while_everything_hangs(node, boot):
    await recover(node.parts, "boot-1")
    pods = {}
    for number in range(200):
        handler = ("runc", "gvisor")[number % 2]
        sandbox = await run_pod_sandbox(node.parts, pod_config(f"pod{number}"), handler)
        pods[sandbox] = await create_container(node.parts, sandbox, container_config())
        await start_container(node.parts, pods[sandbox])
    node.world.power_cut()
    await node.restart()
    node.world.hold = {step: asyncio.Event() for step in HANGS}
    async with asyncio.timeout(3):
        await recover(node.parts, boot)
    listed = list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter())
    assert {pod.id for pod in listed} == pods.keys()
    assert {pod.state for pod in listed} == {api_pb2.SANDBOX_NOTREADY}
    for container in pods.values():
        now = await state(node, container)
        assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 255, "Unknown")
    await node.restart()
    assert not any(sandbox.ready for sandbox in node.parts.ledger.sandboxes), "the ledger says so too"
    assert not any(container.live for container in node.parts.ledger.containers)


@of_any_type
async def test_recover_error_concerns_one_object_and_is_retried(node, error):
    (_, bad), (_, good) = await dead_pods(node)
    node.world.raises[f"exit {bad}"] = error
    await recover(node.parts, "boot-2")
    assert (await state(node, bad)).state == api_pb2.CONTAINER_CREATED
    assert (await state(node, good)).state == api_pb2.CONTAINER_EXITED
    node.world.raises.clear()
    await until(lambda: node.pauses.seconds == [1])
    node.pauses.end()
    await until(lambda: not node.parts.ledger.containers.get(bad).live)
