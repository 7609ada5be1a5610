"""Orphans: objects on the node that no record of the ledger names."""

import asyncio

import pytest
from fakes import FakeExecutor, container_config, pod_config
from restarts import of_any_type, pod_with_container, restart_daemon, until

from noderuntime.core.errors import NotFound
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.status import pod_sandbox_status
from noderuntime.lifecycle.recovery import recover, tear_down
from noderuntime.node.executor.oci import OciExecutor


class BrokenHandler(FakeExecutor):
    async def has_state(self, container_id):
        return False

    async def kill(self, container_id, sandbox_id, signo, *, everything):
        raise NotFound("the runtime /bin/fake is missing")

    async def delete(self, container_id, sandbox_id):
        raise NotFound("the runtime /bin/fake is missing")


async def lose_the_ledger(node):
    for table in (node.parts.ledger.containers, node.parts.ledger.sandboxes):
        for record in table:
            await table.drop(record)


async def test_orphans_of_a_lost_ledger_are_removed(node):
    sandbox, _ = await pod_with_container(node)
    for record in list(node.parts.ledger.containers):
        await node.parts.ledger.containers.drop(record)
    for record in list(node.parts.ledger.sandboxes):
        await node.parts.ledger.sandboxes.drop(record)
    (node.parts.paths.containers / "not-ours").mkdir()
    await restart_daemon(node)
    left = node.left()
    assert left.pop("containers") == ["not-ours"]
    # An empty cgroup cannot be reported to be ours without a record.
    assert set(left) <= {"cgroups"}
    with pytest.raises(NotFound):
        pod_sandbox_status(node.parts, sandbox)


async def test_orphans_are_removed_despite_a_broken_handler(node):
    await pod_with_container(node)
    await lose_the_ledger(node)
    await node.restart()
    broken = BrokenHandler(node.world, "broken", OciExecutor.traits)
    executors = {"broken": broken, **node.parts.executors}
    node.parts.executors.clear()
    node.parts.executors.update(executors)
    await recover(node.parts, "boot-1")
    await tear_down(node.parts)
    assert set(node.left()) <= {"attached", "cgroups"}


@of_any_type
async def test_failed_removal_of_an_orphan_is_retried(node, error):
    await pod_with_container(node)
    other = await run_pod_sandbox(node.parts, pod_config("other"), "runc")
    bad = await create_container(node.parts, other, container_config())
    await lose_the_ledger(node)
    await node.restart()
    node.world.raises[f"delete {bad}"] = error
    await recover(node.parts, "boot-1")
    await tear_down(node.parts)
    assert list(node.world.runtime) == [bad]
    node.world.raises.clear()
    await until(lambda: node.pauses.seconds == [1])
    node.pauses.end()
    await until(lambda: not node.world.runtime)


async def test_container_created_meanwhile_is_not_an_orphan(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    gate = node.world.hold["keys"] = asyncio.Event()
    background = asyncio.create_task(tear_down(node.parts))
    await node.world.held.wait()
    container = await create_container(node.parts, sandbox, container_config())
    gate.set()
    await background
    assert node.world.snapshots == {container}
