"""tear_down: what died is released in the background, while calls are served."""

import asyncio

import pytest
from restarts import dead_pods, let_tasks_run, of_any_type, pod_with_container, restart_daemon, state, until

from noderuntime.core.retries import Retries
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.pods.list import list_pod_sandboxes
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox
from noderuntime.lifecycle.recovery import recover, tear_down


@of_any_type
async def test_teardown_error_concerns_one_object_and_is_retried(node, error):
    (bad, _), (good, _) = await dead_pods(node)
    node.world.raises[f"detach {bad}"] = error
    await recover(node.parts, "boot-2")
    await tear_down(node.parts)
    assert node.world.attached == {bad}
    assert node.parts.ledger.sandboxes.get(good).released_at
    node.world.raises.clear()
    await until(lambda: node.pauses.seconds == [1])
    node.pauses.end()
    await until(lambda: not node.world.attached)


async def test_teardown_that_hangs_does_not_block_others(node):
    (bad, _), (good, _) = await dead_pods(node)
    node.parts.retries = Retries(node.pauses.sleep, seconds=0.05)
    node.world.hold[f"detach {bad}"] = asyncio.Event()
    await recover(node.parts, "boot-2")
    await tear_down(node.parts)
    assert node.world.attached == {bad}
    assert node.parts.ledger.sandboxes.get(good).released_at
    await node.parts.retries.close()


async def test_slow_del_is_called_once_and_completes(node):
    (slow, _), _ = await dead_pods(node)
    node.parts.retries = Retries(node.pauses.sleep, seconds=0.05)
    gate = node.world.hold[f"detach {slow}"] = asyncio.Event()
    await recover(node.parts, "boot-2")
    await tear_down(node.parts)
    gate.set()
    await until(lambda: node.parts.ledger.sandboxes.get(slow).released_at)
    assert node.world.trace.count("detach") == 2, "once for each of the two pods"
    assert node.pauses.seconds == []


@pytest.mark.parametrize("verb", [stop_pod_sandbox, remove_pod_sandbox])
async def test_call_waits_for_the_teardown_of_its_object(node, verb):
    (sandbox, _), _ = await dead_pods(node)
    gate = node.world.hold[f"detach {sandbox}"] = asyncio.Event()
    await recover(node.parts, "boot-2")
    background = asyncio.create_task(tear_down(node.parts))
    await node.world.held.wait()
    call = asyncio.create_task(verb(node.parts, sandbox))
    await let_tasks_run()
    assert not call.done()
    gate.set()
    await asyncio.gather(call, background)
    assert node.world.trace.count("detach") == 2, "once for each of the two pods"


async def test_call_completes_a_failed_teardown(node):
    (sandbox, _), _ = await dead_pods(node)
    node.world.raises[f"detach {sandbox}"] = OSError(5, "x")
    await recover(node.parts, "boot-2")
    await tear_down(node.parts)
    node.world.raises.clear()
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.world.attached
    await until(lambda: node.pauses.seconds)
    node.pauses.end()
    await until(lambda: not len(node.parts.retries))


async def test_failed_delete_does_not_block_the_recovery(node):
    sandbox, container = await pod_with_container(node)
    node.world.exit(container, 5)
    node.world.fail.add("delete")
    await restart_daemon(node)
    assert (await state(node, container)).exit_code == 5
    node.world.fail.clear()
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()
    assert list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter()) == []
