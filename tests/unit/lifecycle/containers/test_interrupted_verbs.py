"""Updates, stops and checkpoints that a killed daemon did not finish."""

import asyncio
import signal
from pathlib import Path

import pytest
from restarts import is_cut_off, kill_daemon, pod_with_container, restart_daemon, state

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.checkpoint import checkpoint_container
from noderuntime.lifecycle.containers.stop import stop_container
from noderuntime.lifecycle.containers.update import update_container_resources
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.recovery import recover, tear_down


@pytest.mark.parametrize("ends", [True, False], ids=["works the second time", "fails the second time"])
async def test_recover_repeats_an_interrupted_update(node, ends):
    _, container = await pod_with_container(node)
    node.world.hold["update"] = asyncio.Event()
    limits = api_pb2.LinuxContainerResources(cpu_shares=77)
    call = asyncio.create_task(update_container_resources(node.parts, container, limits))
    await node.world.held.wait()
    await kill_daemon(node)
    assert is_cut_off(call)
    await node.restart()
    await recover(node.parts, "boot-1")
    assert (await state(node, container)).resources.linux.cpu_shares == 0, "what came of it is unknown"
    if not ends:
        node.world.fail.add("update")
    await tear_down(node.parts)
    assert (await state(node, container)).resources.linux.cpu_shares == (77 if ends else 0)
    assert [update["cpu"]["shares"] for update in node.parts.executors["runc"].updates] == [77] * ends
    assert not (await node.restart()).ledger.containers.get(container).updating.ByteSize()


@pytest.mark.parametrize("step", ["kill", "detach", "unpin", "remove_cgroup"])
async def test_interrupted_stop_can_be_repeated(node, step):
    sandbox, _ = await pod_with_container(node, "gvisor")
    node.world.hold[step] = asyncio.Event()
    call = asyncio.create_task(remove_pod_sandbox(node.parts, sandbox))
    await node.world.held.wait()
    await restart_daemon(node)
    assert is_cut_off(call)
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_stop_interrupted_before_its_signal_sends_it(node):
    _, container = await pod_with_container(node)
    node.world.hold["kill"] = asyncio.Event()
    call = asyncio.create_task(stop_container(node.parts, container, 10))
    await node.world.held.wait()
    await restart_daemon(node)
    assert is_cut_off(call)
    assert node.world.signals == []
    await stop_container(node.parts, container, 10)
    assert node.world.signals == [(container, signal.SIGTERM)]


async def test_interrupted_checkpoint_leaves_its_container_running(node, tmp_path):
    _, container = await pod_with_container(node)
    node.world.hold["checkpoint"] = asyncio.Event()
    call = asyncio.create_task(checkpoint_container(node.parts, container, str(tmp_path / "c.tar"), 0))
    await node.world.held.wait()
    assert node.world.frozen == {container}
    sandbox = node.parts.ledger.sandboxes.get(node.parts.ledger.containers.get(container).sandbox_id)
    node.world.locked.add(Path(sandbox.netns))
    await restart_daemon(node)
    assert is_cut_off(call)
    assert node.world.frozen == set()
    assert node.world.locked == set()
    assert node.parts.ledger.containers.get(container).checkpointing_at == 0
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING


async def test_interrupted_checkpoint_is_removed(node):
    await pod_with_container(node)
    unfinished = node.directory / f"state/checkpoints/{'a' * 64}/pages-1.img"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    await restart_daemon(node)
    assert not unfinished.exists()
