"""Daemons that are killed and started again on a fake node, for tests of recovery."""

import asyncio

import pytest
from fakes import container_config, pod_config
from fakeworld import Dead
from google.protobuf.message import DecodeError
from pydantic_core import ValidationError

from noderuntime.core.errors import Unavailable
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.status import container_status
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.recovery import recover, tear_down
from noderuntime.lifecycle.supervisor import Supervisor

HANDLERS = pytest.mark.parametrize("handler", ["runc", "gvisor"])


async def kill_daemon(node):
    node.world.dead = True
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
        await asyncio.wait([task])
    node.world.hold.clear()
    node.world.watching.clear()
    node.world.dead = False


async def start_daemon(node, boot="boot-1"):
    """Run the steps of a daemon's start."""
    await recover(node.parts, boot)
    Supervisor(node.parts).__enter__()
    await tear_down(node.parts)
    await node.parts.work.drain(5)


async def restart_daemon(node, boot="boot-1"):
    """Cut off all work, as kill -9 does, and start the next daemon."""
    await kill_daemon(node)
    await node.restart()
    await start_daemon(node, boot)


def is_cut_off(call):
    return call.cancelled() or isinstance(call.exception(), Dead)


async def pod_with_container(node, handler="runc"):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), handler)
    container = await create_container(node.parts, sandbox, container_config())
    await start_container(node.parts, container)
    return sandbox, container


ERRORS = [
    Unavailable("x"),
    KeyError("x"),
    ValueError("x"),
    OSError(5, "x"),
    DecodeError("x"),
    ValidationError.from_exception_data("x", []),
]
of_any_type = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


async def dead_pods(node, handler="runc"):
    """Start two pods, reboot and restart; return their sandboxes and containers."""
    await recover(node.parts, "boot-1")
    pods = []
    for name in ("one", "two"):
        sandbox = await run_pod_sandbox(node.parts, pod_config(name), handler)
        pods.append((sandbox, await create_container(node.parts, sandbox, container_config())))
    node.world.power_cut()
    await node.restart()
    return pods


async def state(node, container):
    return (await container_status(node.parts, container)).status


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def let_tasks_run():
    for _ in range(20):
        await asyncio.sleep(0)
