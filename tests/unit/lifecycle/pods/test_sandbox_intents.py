"""Sandboxes whose RunPodSandbox a killed daemon did not finish."""

import asyncio

import pytest
from fakes import pod_config
from restarts import HANDLERS, is_cut_off, kill_daemon, let_tasks_run, restart_daemon

from noderuntime.core.errors import AlreadyExists, Internal
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.pods.list import list_pod_sandboxes
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.status import pod_sandbox_status
from noderuntime.lifecycle.recovery import recover, tear_down


async def unfinished_sandbox(node):
    """Kill a daemon in the middle of a RunPodSandbox, and start its successor."""
    await recover(node.parts, "boot-1")
    node.world.hold["attach"] = asyncio.Event()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    await node.world.held.wait()
    await kill_daemon(node)
    assert is_cut_off(call)
    await node.restart()
    await recover(node.parts, "boot-1")


@HANDLERS
@pytest.mark.parametrize("step", ["mount", "pin", "attach", "create", "start"])
async def test_recover_undoes_an_unfinished_sandbox(node, step, handler):
    if handler == "runc" and step in ("create", "start"):
        return
    await recover(node.parts, "boot-1")
    node.world.hold[step] = asyncio.Event()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), handler))
    await node.world.held.wait()
    while len(node.world.processes) < 2 and handler == "gvisor" and step == "attach":
        await asyncio.sleep(0.001)
    await restart_daemon(node)
    assert is_cut_off(call)
    assert not node.left()
    assert list(node.world.deleted.values()) in ([b"configuration"], [b"{}"]), "DEL has the network of ADD"
    assert await run_pod_sandbox(node.parts, pod_config(), handler)


async def test_name_of_an_intent_is_free_before_the_teardown(node):
    await unfinished_sandbox(node)
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    assert node.world.attached == {sandbox}
    assert [record.id for record in node.parts.ledger.sandboxes] == [sandbox]
    await tear_down(node.parts)
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_READY


async def test_name_of_an_intent_is_free_after_its_teardown(node):
    await unfinished_sandbox(node)
    gate = node.world.hold["detach"] = asyncio.Event()
    node.world.held.clear()
    background = asyncio.create_task(tear_down(node.parts))
    await node.world.held.wait()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    await let_tasks_run()
    assert not call.done()
    gate.set()
    await background
    assert [record.id for record in node.parts.ledger.sandboxes] == [await call]


async def test_name_of_an_intent_that_cannot_be_undone_is_taken(node):
    await unfinished_sandbox(node)
    node.world.fail.add("detach")
    with pytest.raises(Internal, match="detach fails"):
        await run_pod_sandbox(node.parts, pod_config(), "runc")
    with pytest.raises(AlreadyExists):
        await run_pod_sandbox(node.parts, pod_config(), "runc")
    (listed,) = list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter())
    assert listed.state == api_pb2.SANDBOX_NOTREADY


async def test_intent_that_cannot_be_undone_becomes_visible(node):
    await recover(node.parts, "boot-1")
    node.world.hold["attach"] = asyncio.Event()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    await node.world.held.wait()
    node.world.fail.add("detach")
    await restart_daemon(node)
    assert is_cut_off(call)
    (listed,) = list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter())
    assert listed.state == api_pb2.SANDBOX_NOTREADY
    node.world.fail.clear()
    await remove_pod_sandbox(node.parts, listed.id)
    assert not node.left()
