"""The daemon dies at some moment; what its successor makes of it."""

import asyncio
import signal

import pytest
from fakes import FakeExecutor, container_config, pod_config
from fakeworld import Dead
from google.protobuf.message import DecodeError
from pydantic_core import ValidationError

from noderuntime.core.errors import AlreadyExists, Internal, NotFound, Unavailable
from noderuntime.core.retries import Retries
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.checkpoint import checkpoint_container
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.remove import remove_container
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.status import container_status
from noderuntime.lifecycle.containers.stop import stop_container
from noderuntime.lifecycle.containers.update import update_container_resources
from noderuntime.lifecycle.pods.list import list_pod_sandboxes
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.status import pod_sandbox_status
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox
from noderuntime.lifecycle.recovery import recover, tear_down
from noderuntime.lifecycle.supervisor import Supervisor
from noderuntime.node.executor.oci import OciExecutor

HANDLERS = pytest.mark.parametrize("handler", ["runc", "gvisor"])


async def die(node):
    node.world.dead = True
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
        await asyncio.wait([task])
    node.world.hold.clear()
    node.world.watching.clear()
    node.world.dead = False


async def succeed(node, boot="boot-1"):
    """Do what a daemon does at its start."""
    await recover(node.parts, boot)
    Supervisor(node.parts).__enter__()
    await tear_down(node.parts)
    await node.parts.work.drain(5)


async def die_and_recover(node, boot="boot-1"):
    """Cut off all work where it stands, as kill -9 does, and start a successor."""
    await die(node)
    await node.restart()
    await succeed(node, boot)


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
async def test_recover_adopts_what_runs(node, handler):
    sandbox, container = await pod_with_container(node, handler)
    before = node.world.left()
    await die_and_recover(node)
    assert node.world.left() == before
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING
    status = pod_sandbox_status(node.parts, sandbox).status
    assert (status.state, status.network.ip) == (api_pb2.SANDBOX_READY, "10.0.0.2")
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_recover_reads_an_end_from_the_exit_file(node):
    sandbox, container = await pod_with_container(node)
    node.world.exit(container, 7)
    await die_and_recover(node)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 7, "Error")
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_READY


async def test_recover_ends_a_container_without_its_monitor(node):
    _, container = await pod_with_container(node)
    node.world.end(node.world.runtime[container].monitor)
    await die_and_recover(node)
    now = await state(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 255, "Unknown")
    assert container not in node.world.runtime


@HANDLERS
@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
async def test_recover_after_a_reboot_records_all_ends(node, handler, boot):
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


async def test_recover_after_a_reboot_adopts_no_reused_pid(node):
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
async def test_recover_undoes_a_half_made_sandbox(node, step, handler):
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
    assert list(node.world.deleted.values()) in ([b"configuration"], [b"{}"]), "DEL has the network of ADD"
    assert await run_pod_sandbox(node.parts, pod_config(), handler)


@pytest.mark.parametrize("step", ["prepare", "create"])
async def test_recover_undoes_a_half_made_container(node, step):
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


async def test_created_container_starts_after_a_restart(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    container = await create_container(node.parts, sandbox, container_config())
    await die_and_recover(node)
    await start_container(node.parts, container)
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING


async def test_recover_fails_an_interrupted_start(node):
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
    assert container not in node.world.runtime
    await remove_container(node.parts, container)
    assert not node.world.snapshots


@pytest.mark.parametrize("ends", [True, False], ids=["works the second time", "fails the second time"])
async def test_recover_repeats_an_interrupted_update(node, ends):
    _, container = await pod_with_container(node)
    node.world.hold["update"] = asyncio.Event()
    limits = api_pb2.LinuxContainerResources(cpu_shares=77)
    call = asyncio.create_task(update_container_resources(node.parts, container, limits))
    await node.world.held.wait()
    await die(node)
    assert is_dead(call)
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
    await die_and_recover(node)
    assert is_dead(call)
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_stop_interrupted_before_its_signal_sends_it(node):
    _, container = await pod_with_container(node)
    node.world.hold["kill"] = asyncio.Event()
    call = asyncio.create_task(stop_container(node.parts, container, 10))
    await node.world.held.wait()
    await die_and_recover(node)
    assert is_dead(call)
    assert node.world.signals == []
    await stop_container(node.parts, container, 10)
    assert node.world.signals == [(container, signal.SIGTERM)]


async def test_recover_notices_a_sandbox_whose_process_ended(node):
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
    # An empty cgroup cannot be told to be ours without a record.
    assert set(left) <= {"cgroups"}
    with pytest.raises(NotFound):
        pod_sandbox_status(node.parts, sandbox)


async def test_container_of_an_interrupted_checkpoint_runs_on(node, tmp_path):
    _, container = await pod_with_container(node)
    node.world.hold["checkpoint"] = asyncio.Event()
    call = asyncio.create_task(checkpoint_container(node.parts, container, str(tmp_path / "c.tar"), 0))
    await node.world.held.wait()
    assert node.world.frozen == {container}
    await die_and_recover(node)
    assert is_dead(call)
    assert node.world.frozen == set()
    assert node.parts.ledger.containers.get(container).checkpointing_at == 0
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING


async def test_interrupted_checkpoint_is_removed(node):
    await pod_with_container(node)
    unfinished = node.directory / f"state/checkpoints/{'a' * 64}/pages-1.img"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    await die_and_recover(node)
    assert not unfinished.exists()


async def test_unavailable_image_store_does_not_stop_the_start(node):
    _, container = await pod_with_container(node)
    node.world.fail.add("keys")
    await die_and_recover(node)
    assert (await state(node, container)).state == api_pb2.CONTAINER_RUNNING


HANGS = ("detach", "kill", "delete", "unmount", "unpin", "remove_tree", "remove_cgroup", "release", "forget")


@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
async def test_recover_records_deaths_though_everything_hangs(node, boot):
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


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def turns():
    for _ in range(20):
        await asyncio.sleep(0)


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


async def test_teardown_that_hangs_is_apart_from_the_others(node):
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
    await turns()
    assert not call.done()
    gate.set()
    await asyncio.gather(call, background)
    assert node.world.trace.count("detach") == 2, "once for each of the two pods"


async def test_call_ends_the_teardown_that_failed(node):
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


async def half_made_pod(node):
    """Kill a daemon in the middle of a RunPodSandbox, and start its successor."""
    await recover(node.parts, "boot-1")
    node.world.hold["attach"] = asyncio.Event()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    await node.world.held.wait()
    await die(node)
    assert is_dead(call)
    await node.restart()
    await recover(node.parts, "boot-1")


async def test_name_of_an_intent_is_free_before_the_teardown(node):
    await half_made_pod(node)
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    assert node.world.attached == {sandbox}
    assert [record.id for record in node.parts.ledger.sandboxes] == [sandbox]
    await tear_down(node.parts)
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_READY


async def test_name_of_an_intent_is_free_after_its_teardown(node):
    await half_made_pod(node)
    gate = node.world.hold["detach"] = asyncio.Event()
    node.world.held.clear()
    background = asyncio.create_task(tear_down(node.parts))
    await node.world.held.wait()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    await turns()
    assert not call.done()
    gate.set()
    await background
    assert [record.id for record in node.parts.ledger.sandboxes] == [await call]


async def test_name_of_an_intent_that_cannot_be_undone_is_taken(node):
    await half_made_pod(node)
    node.world.fail.add("detach")
    with pytest.raises(Internal, match="detach fails"):
        await run_pod_sandbox(node.parts, pod_config(), "runc")
    with pytest.raises(AlreadyExists):
        await run_pod_sandbox(node.parts, pod_config(), "runc")
    (listed,) = list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter())
    assert listed.state == api_pb2.SANDBOX_NOTREADY


async def half_made_container(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    node.world.hold["create"] = asyncio.Event()
    call = asyncio.create_task(create_container(node.parts, sandbox, container_config()))
    await node.world.held.wait()
    await die(node)
    assert is_dead(call)
    await node.restart()
    await recover(node.parts, "boot-1")
    return sandbox


async def test_name_of_a_container_intent_is_free_before_the_teardown(node):
    sandbox = await half_made_container(node)
    container = await create_container(node.parts, sandbox, container_config())
    assert node.world.snapshots == {container}
    await tear_down(node.parts)
    assert (await state(node, container)).state == api_pb2.CONTAINER_CREATED


async def test_stop_undoes_a_container_intent(node):
    sandbox = await half_made_container(node)
    await stop_pod_sandbox(node.parts, sandbox)
    assert list(node.parts.ledger.containers) == []
    assert not node.world.snapshots


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


async def test_orphans_are_removed_though_another_handler_is_broken(node):
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
async def test_orphan_that_resists_stays_alone_and_is_retried(node, error):
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


async def test_container_made_meanwhile_is_no_orphan(node):
    await recover(node.parts, "boot-1")
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    gate = node.world.hold["keys"] = asyncio.Event()
    background = asyncio.create_task(tear_down(node.parts))
    await node.world.held.wait()
    container = await create_container(node.parts, sandbox, container_config())
    gate.set()
    await background
    assert node.world.snapshots == {container}


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


async def test_intent_that_cannot_be_undone_becomes_visible(node):
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
