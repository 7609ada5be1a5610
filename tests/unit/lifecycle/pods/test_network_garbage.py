import asyncio

import pytest
from fakes import pod_config

from noderuntime.core.errors import Internal, NoderuntimeError, Unavailable
from noderuntime.core.tasks import Scope
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.pods.network_garbage import attachments, collect, collect_network_garbage
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox


class BrokenNetwork:
    """A network whose garbage collection fails."""

    def __init__(self, error):
        self.error = error

    async def collect_garbage(self, attachments):
        raise self.error


async def test_gc_keeps_what_the_ledger_knows_and_removes_the_rest(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    node.world.attached.add("leaked")
    assert await collect(node.parts) == 3600
    assert node.world.attached == {sandbox}


async def test_attachments_include_an_add_in_flight(node):
    gate = node.world.hold["attach"] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
        await node.world.held.wait()
        unfinished = attachments(node.parts.ledger)
        gate.set()
        sandbox = await running
    assert unfinished == {sandbox: b"configuration"}


async def test_attachments_end_when_the_pod_is_detached(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    node.world.fail = {"detach"}
    with pytest.raises(NoderuntimeError):
        await stop_pod_sandbox(node.parts, sandbox)
    assert attachments(node.parts.ledger) == {sandbox: b"{}"}, "GC does not replace DEL"
    node.world.fail = set()
    await stop_pod_sandbox(node.parts, sandbox)
    assert attachments(node.parts.ledger) == {}
    await remove_pod_sandbox(node.parts, sandbox)


@pytest.mark.parametrize(
    ("error", "pause", "logged"),
    [(Unavailable("no CNI configuration"), 60, 0), (KeyError("plugins"), 3600, 1)],
)
async def test_gc_that_fails_is_logged_and_repeated(node, caplog, error, pause, logged):
    node.parts.network = BrokenNetwork(error)
    assert await collect(node.parts) == pause
    assert [record.message for record in caplog.records].count("CNI GC failed") == logged


async def test_record_is_on_disk_before_plugins_run(node, monkeypatch):
    monkeypatch.setattr(node.parts.ledger, "sync", lambda: node.world.step("sync"))
    await run_pod_sandbox(node.parts, pod_config(), "runc")
    assert node.world.trace.index("sync") < node.world.trace.index("attach")


async def test_pod_on_the_host_network_does_not_wait_for_the_disk(node, monkeypatch):
    monkeypatch.setattr(node.parts.ledger, "sync", lambda: node.world.step("sync"))
    config = pod_config()
    config.linux.security_context.namespace_options.network = api_pb2.NODE
    await run_pod_sandbox(node.parts, config, "runc")
    assert not {"sync", "attach"} & set(node.world.trace)


async def test_record_that_cannot_be_flushed_fails_the_pod(node, monkeypatch):
    monkeypatch.setattr(node.parts.ledger, "sync", lambda: node.world.step("sync"))
    node.world.fail = {"sync"}
    with pytest.raises(Internal, match="sync fails"):
        await run_pod_sandbox(node.parts, pod_config(), "runc")
    assert "attach" not in node.world.trace
    assert not node.left()


async def test_gc_begins_when_what_died_is_torn_down(node):
    gate = asyncio.Event()
    tearing_down = node.parts.work.background(gate.wait(), name="tear down")
    node.world.hold["collect garbage"] = asyncio.Event()
    async with Scope() as scope:
        scope.start(collect_network_garbage(node.parts, tearing_down), name="collect")
        await asyncio.sleep(0.01)
        assert "collect garbage" not in node.world.trace
        gate.set()
        await node.world.held.wait()
