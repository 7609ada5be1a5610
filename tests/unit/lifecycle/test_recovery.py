"""The daemon dies at some moment; what its successor makes of it."""

import asyncio

import pytest
from fakes import container_config, pod_config
from fakeworld import Dead

from noderuntime.core.errors import NotFound
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.remove import remove_container
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.status import container_status
from noderuntime.lifecycle.pods.list import list_pod_sandboxes
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.status import pod_sandbox_status
from noderuntime.lifecycle.recovery import recover

HANDLERS = pytest.mark.parametrize("handler", ["runc", "gvisor"])


async def die_and_recover(node, boot="boot-1"):
    """Cut off all work where it stands, as kill -9 does, and start a successor."""
    node.world.dead = True
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
        await asyncio.wait([task])
    node.world.hold.clear()
    node.world.dead = False
    await node.restart()
    await recover(node.parts, boot)


def is_dead(call):
    return call.cancelled() or isinstance(call.exception(), Dead)


async def pod_with_container(node, handler="runc"):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), handler)
    container = await create_container(node.parts, sandbox, container_config())
    await start_container(node.parts, container)
    return sandbox, container


async def state(node, container):
    return (await container_status(node.parts, container)).status


@HANDLERS
async def test_what_runs_is_adopted(node, handler):
    sandbox, container = await pod_with_container(node, handler)
    before = node.world.left()
    await die_and_recover(node)
    assert node.world.left() == before
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING
    status = pod_sandbox_status(node.parts, sandbox).status
    assert (status.state, status.network.ip) == (api_pb2.SANDBOX_READY, "10.0.0.2")
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_an_end_in_between_is_read_from_the_exit_file(node):
    sandbox, container = await pod_with_container(node)
    node.world.exit(container, 7)
    await die_and_recover(node)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 7, "Error")
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_READY


async def test_a_container_without_its_monitor_is_ended(node):
    _, container = await pod_with_container(node)
    node.world.end(node.world.runtime[container].monitor)
    await die_and_recover(node)
    assert (await state(node, container)).state == api_pb2.CONTAINER_EXITED
    assert container not in node.world.runtime


@HANDLERS
@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
async def test_after_a_reboot_all_is_gone_and_known_to_be(node, handler, boot):
    """With the old boot ID: a node that is itself a container."""
    sandbox, container = await pod_with_container(node, handler)
    node.world.power_cut()
    await die_and_recover(node, boot)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 255, "Unknown")
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_NOTREADY
    assert not node.world.attached, "addresses are given back at once"
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()
    assert await node.parts.ledger.meta("boot_id") == boot


async def test_after_a_reboot_another_process_with_the_pid_is_not_ours(node):
    _, container = await pod_with_container(node)
    running = node.world.runtime[container]
    node.world.power_cut()
    node.world.processes[running.process] = asyncio.Event()
    node.world.processes[running.monitor] = asyncio.Event()
    await die_and_recover(node, "boot-2")
    assert (await state(node, container)).state == api_pb2.CONTAINER_EXITED
    assert running.process in node.world.processes


@HANDLERS
@pytest.mark.parametrize("step", ["mount", "pin", "attach", "create", "start"])
async def test_a_sandbox_that_was_half_made_is_undone(node, step, handler):
    if handler == "runc" and step in ("create", "start"):
        return
    await recover(node.parts, "boot-1")
    node.world.hold[step] = asyncio.Event()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), handler))
    await node.world.held.wait()
    while len(node.world.processes) < 2 and handler == "gvisor" and step == "attach":
        await asyncio.sleep(0.001)
    await die_and_recover(node)
    assert is_dead(call)
    assert not node.left()
    assert await run_pod_sandbox(node.parts, pod_config(), handler)


@pytest.mark.parametrize("step", ["prepare", "create"])
async def test_a_container_that_was_half_made_is_undone(node, step):
    await recover(node.parts, "boot-1")
    logs = node.directory / "logs"
    sandbox = await run_pod_sandbox(node.parts, pod_config(log_directory=str(logs)), "runc")
    before = node.world.left()
    node.world.hold[step] = asyncio.Event()
    call = asyncio.create_task(create_container(node.parts, sandbox, container_config(log_path="0.log")))
    await node.world.held.wait()
    await die_and_recover(node)
    assert is_dead(call)
    assert node.world.left() == before
    assert not list(logs.iterdir())
    assert not list(node.parts.ledger.containers)
    assert not list(node.parts.paths.containers.iterdir())
    assert await create_container(node.parts, sandbox, container_config())


async def test_a_created_container_can_be_started_by_the_successor(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    container = await create_container(node.parts, sandbox, container_config())
    await die_and_recover(node)
    await start_container(node.parts, container)
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING


async def test_a_start_that_was_cut_off_has_failed(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    container = await create_container(node.parts, sandbox, container_config())
    node.world.hold["start"] = asyncio.Event()
    call = asyncio.create_task(start_container(node.parts, container))
    await node.world.held.wait()
    await die_and_recover(node)
    assert is_dead(call)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 128, "StartError")
    await remove_container(node.parts, container)
    assert not node.world.snapshots


@pytest.mark.parametrize("step", ["kill", "detach", "unpin", "remove_cgroup"])
async def test_a_stop_that_was_cut_off_can_be_repeated(node, step):
    sandbox, _ = await pod_with_container(node, "gvisor")
    node.world.hold[step] = asyncio.Event()
    call = asyncio.create_task(remove_pod_sandbox(node.parts, sandbox))
    await node.world.held.wait()
    await die_and_recover(node)
    assert is_dead(call)
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_a_sandbox_whose_process_ended_in_between_is_not_ready(node):
    sandbox, container = await pod_with_container(node, "gvisor")
    node.world.exit(sandbox, 2)
    node.world.exit(container, 2)
    await die_and_recover(node)
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_NOTREADY
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_orphans_of_a_lost_ledger_are_removed(node):
    sandbox, _ = await pod_with_container(node)
    for record in list(node.parts.ledger.containers):
        await node.parts.ledger.containers.drop(record)
    for record in list(node.parts.ledger.sandboxes):
        await node.parts.ledger.sandboxes.drop(record)
    (node.parts.paths.containers / "not-ours").mkdir()
    await die_and_recover(node)
    left = node.left()
    assert left.pop("containers") == ["not-ours"]
    # An address and an empty cgroup cannot be told to be ours without a record.
    assert set(left) <= {"attached", "cgroups"}
    with pytest.raises(NotFound):
        pod_sandbox_status(node.parts, sandbox)


async def test_a_checkpoint_that_was_cut_off_is_removed(node):
    await pod_with_container(node)
    unfinished = node.directory / "state/checkpoints/somebody/pages-1.img"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    await die_and_recover(node)
    assert not unfinished.exists()


async def test_an_image_store_that_is_away_does_not_keep_the_daemon_from_starting(node):
    _, container = await pod_with_container(node)
    node.world.fail.add("keys")
    await die_and_recover(node)
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING


async def test_one_object_that_resists_does_not_stop_the_others(node):
    sandbox, container = await pod_with_container(node)
    node.world.exit(container, 5)
    node.world.fail.add("delete")
    await die_and_recover(node)
    assert (await state(node, container)).exit_code == 5
    node.world.fail.clear()
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()
    assert list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter()) == []


async def test_an_intent_that_cannot_be_undone_is_shown_to_the_kubelet(node):
    await recover(node.parts, "boot-1")
    node.world.hold["attach"] = asyncio.Event()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    await node.world.held.wait()
    node.world.fail.add("detach")
    await die_and_recover(node)
    assert is_dead(call)
    (listed,) = list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter())
    assert listed.state == api_pb2.SANDBOX_NOTREADY
    node.world.fail.clear()
    await remove_pod_sandbox(node.parts, listed.id)
    assert not node.left()
