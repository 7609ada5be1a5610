import asyncio
import json
import signal
import sqlite3
from contextlib import closing

import pytest
from fakes import IMAGE_DIGESTS, IMAGE_ID, container_config, pod_config

from noderuntime.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    HostError,
    Internal,
    InvalidArgument,
    NotFound,
)
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers import exits
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.exec_sync import exec_sync
from noderuntime.lifecycle.containers.list import list_containers
from noderuntime.lifecycle.containers.remove import remove_container
from noderuntime.lifecycle.containers.reopen_log import reopen_container_log
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.status import container_status
from noderuntime.lifecycle.containers.stop import stop_container
from noderuntime.lifecycle.containers.update import update_container_resources
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox


@pytest.fixture
async def sandbox(node):
    return await run_pod_sandbox(node.parts, pod_config(log_directory=str(node.directory / "logs")), "runc")


@pytest.fixture
async def running(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config(log_path="app/0.log"))
    await start_container(node.parts, container)
    return container


async def status(node, container):
    return (await container_status(node.parts, container)).status


async def ended(node, container):
    await exits.settle(node.parts, node.parts.ledger.containers.get(container))
    return await status(node, container)


async def test_removed_container_leaves_nothing(node, sandbox):
    before = node.world.left()
    container = await create_container(node.parts, sandbox, container_config(log_path="app/0.log"))
    now = await status(node, container)
    assert now.state == api_pb2.CONTAINER_CREATED
    assert (now.image_id, now.image_ref) == (IMAGE_ID, IMAGE_DIGESTS[0])
    assert (now.image.image, now.image.user_specified_image) == ("example.org/app:1", "app:latest")
    assert now.log_path == str(node.directory / "logs/app/0.log")
    assert (node.directory / "logs/app").is_dir()
    assert now.stop_signal == api_pb2.SIGTERM

    await start_container(node.parts, container)
    now = await status(node, container)
    assert now.state == api_pb2.CONTAINER_RUNNING
    assert now.started_at >= now.created_at > 0

    node.world.exit(container, 0)
    now = await ended(node, container)
    assert (now.state, now.exit_code, now.reason) == (api_pb2.CONTAINER_EXITED, 0, "Completed")
    assert now.finished_at >= now.started_at
    assert container not in node.world.runtime

    await remove_container(node.parts, container)
    assert {k: v for k, v in node.world.left().items() if k != "cgroups"} == before
    with pytest.raises(NotFound):
        await status(node, container)


@pytest.mark.parametrize(
    ("image", "user_specified", "expected"),
    [
        ("app", "app:latest", IMAGE_DIGESTS[0]),
        (IMAGE_ID, "example.org/app:1", IMAGE_DIGESTS[1]),
        (IMAGE_ID, "example.org/other:1", IMAGE_DIGESTS[0]),
        (IMAGE_ID, "", IMAGE_DIGESTS[0]),
        ("loaded", "app:latest", IMAGE_ID),
    ],
)
async def test_image_ref_is_the_digest_that_was_pulled(node, sandbox, image, user_specified, expected):
    config = container_config()
    config.image.image, config.image.user_specified_image = image, user_specified
    container = await create_container(node.parts, sandbox, config)
    now = await status(node, container)
    assert (now.image_ref, now.image_id) == (expected, IMAGE_ID)
    [listed] = list_containers(node.parts, api_pb2.ContainerFilter(id=container))
    assert (listed.image_ref, listed.image_id) == (expected, IMAGE_ID)


@pytest.mark.parametrize(
    ("image", "user_specified", "expected"),
    [
        (IMAGE_ID, "example.org/app:2", "example.org/app:2"),
        (IMAGE_ID, "app:2", "example.org/app:2"),
        ("example.org/app:2", "", "example.org/app:2"),
        (IMAGE_ID, f"example.org/app:2@{IMAGE_DIGESTS[1].partition('@')[2]}", IMAGE_DIGESTS[1]),
        (IMAGE_ID, "example.org/app:moved", "example.org/app:1"),
        (IMAGE_ID, "", "example.org/app:1"),
    ],
)
async def test_image_name_is_the_requested_one(node, sandbox, image, user_specified, expected):
    config = container_config()
    config.image.image, config.image.user_specified_image = image, user_specified
    container = await create_container(node.parts, sandbox, config)
    assert (await status(node, container)).image.image == expected
    [listed] = list_containers(node.parts, api_pb2.ContainerFilter(id=container))
    assert listed.image.image == expected


def volume(**fields):
    wanted = {"container_path": "/data", "image": api_pb2.ImageSpec(image="app"), "readonly": True}
    return api_pb2.Mount(**(wanted | fields))


async def test_image_volumes_are_removed_with_their_container(node, sandbox):
    config = container_config(mounts=[api_pb2.Mount(container_path="/a", host_path="/tmp"), volume()])
    container = await create_container(node.parts, sandbox, config)
    [place] = node.world.volumes[container]
    assert place.parent == node.parts.paths.container(container).volumes
    path, image = (await status(node, container)).mounts
    assert (path.host_path, image.image.image, image.image.image_ref) == ("/tmp", IMAGE_ID, IMAGE_ID)
    await remove_container(node.parts, container)
    assert node.world.volumes == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"host_path": "/tmp"},
        {"propagation": api_pb2.PROPAGATION_BIDIRECTIONAL},
        {"readonly": False},
        {"image_sub_path": "/etc"},
        {"image_sub_path": "etc/../../node"},
    ],
    ids=str,
)
async def test_invalid_image_volume_leaves_nothing(node, sandbox, bad):
    before = node.world.left()
    with pytest.raises(InvalidArgument):
        await create_container(node.parts, sandbox, container_config(mounts=[volume(**bad)]))
    assert node.world.left() == before


@pytest.mark.parametrize(("code", "oom", "reason"), [(1, False, "Error"), (137, True, "OOMKilled")])
async def test_reason_follows_code_and_oom_kill(node, running, code, oom, reason):
    if oom:
        node.world.oom.add(running)
    node.world.exit(running, code)
    now = await ended(node, running)
    assert (now.exit_code, now.reason) == (code, reason)


@pytest.mark.parametrize(("handler", "victim"), [("runc", "container"), ("gvisor", "sandbox")])
async def test_oom_kill_is_counted_without_the_monitors_file(node, handler, victim):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), handler)
    container = await create_container(node.parts, sandbox, container_config())
    await start_container(node.parts, container)
    of = {"container": container, "sandbox": sandbox}[victim]
    node.world.oom_kills[f"/kubepods/pod-web/{of}"] = 1
    node.world.exit(container, 137)
    assert (await ended(node, container)).reason == "OOMKilled"


@pytest.mark.parametrize(
    ("before", "after", "code", "happened", "reason"),
    [
        (2, 3, 137, "", "OOMKilled"),
        (2, 2, 137, "", "Error"),
        (2, 3, 1, "", "Error"),
        (2, 3, 137, "stopping_at", "OOMKilled"),
        (2, 3, 137, "killed_at", "Error"),
        (2, 0, 137, "", "Error"),
    ],
    ids=["one more", "another, before", "not killed", "asked to stop", "killed by us", "pod's is gone too"],
)
async def test_oom_kill_is_found_in_the_pods_count(node, sandbox, before, after, code, happened, reason):
    node.world.oom_kills["/kubepods/pod-web"] = before
    container = await create_container(node.parts, sandbox, container_config())
    await start_container(node.parts, container)
    if happened:
        record = node.parts.ledger.containers.get(container)
        setattr(record, happened, 1)
        await node.parts.ledger.containers.save(record)
    await node.restart()
    node.world.oom_kills["/kubepods/pod-web"] = after
    node.world.exit(container, code)
    assert (await ended(node, container)).reason == reason


async def test_end_without_an_exit_file_is_unknown(node, running):
    node.world.exit(running, seen=False)
    now = await ended(node, running)
    assert (now.exit_code, now.reason) == (255, "Unknown")


@pytest.mark.parametrize("late", ["", "!"])
@pytest.mark.parametrize("step", ["image", "prepare", "create"])
async def test_failure_at_any_step_leaves_nothing(node, sandbox, step, late):
    if (step, late) == ("image", "!"):
        return
    before = node.world.left()
    node.world.fail.add(step + late)
    with pytest.raises(Internal, match=f"{step} fails"):
        await create_container(node.parts, sandbox, container_config(log_path="0.log"))
    assert not list(node.directory.glob("logs/*"))
    assert {k: v for k, v in node.world.left().items() if k != "cgroups"} == before
    assert not list(node.parts.ledger.containers)
    assert not list(node.parts.paths.containers.glob("*"))
    node.world.fail.clear()
    await create_container(node.parts, sandbox, container_config())


async def test_log_that_is_not_empty_is_kept(node, sandbox):
    log = node.directory / "logs" / "0.log"
    log.write_text("last words\n")
    node.world.fail.add("create")
    with pytest.raises(Internal, match="create fails"):
        await create_container(node.parts, sandbox, container_config(log_path="0.log"))
    assert log.read_text() == "last words\n"


async def test_failed_undo_leaves_a_container_to_remove(node, sandbox):
    node.world.fail |= {"create", "release"}
    with pytest.raises(Internal, match="create fails"):
        await create_container(node.parts, sandbox, container_config())
    (left,) = list_containers(node.parts, api_pb2.ContainerFilter())
    assert left.state == api_pb2.CONTAINER_EXITED
    node.world.fail.clear()
    await remove_container(node.parts, left.id)
    assert not node.world.snapshots
    assert not list(node.parts.ledger.containers)


async def test_cancelled_create_is_finished_for_the_retry(node, sandbox):
    node.world.hold["create"] = asyncio.Event()
    call = asyncio.create_task(create_container(node.parts, sandbox, container_config()))
    await node.world.held.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    node.world.hold.pop("create").set()
    await node.parts.work.drain(5)
    container = await create_container(node.parts, sandbox, container_config())
    assert node.world.trace.count("prepare") == 1
    with pytest.raises(AlreadyExists, match=container):
        await create_container(node.parts, sandbox, container_config())


async def test_cancelled_start_is_finished(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config())
    node.world.hold["start"] = asyncio.Event()
    call = asyncio.create_task(start_container(node.parts, container))
    await node.world.held.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    node.world.hold.pop("start").set()
    await node.parts.work.drain(5)
    assert (await status(node, container)).state == api_pb2.CONTAINER_RUNNING


async def test_stop_sends_the_stop_signal(node, running):
    await stop_container(node.parts, running, 10)
    assert node.world.signals == [(running, signal.SIGTERM)]
    now = await status(node, running)
    assert (now.exit_code, now.reason) == (128 + signal.SIGTERM, "Error")
    await stop_container(node.parts, running, 10)
    assert len(node.world.signals) == 1


async def test_stop_kills_after_its_timeout(node, running):
    node.world.stubborn.add(running)
    await stop_container(node.parts, running, 0.05)
    assert [signo for _, signo in node.world.signals] == [signal.SIGTERM, signal.SIGKILL]
    assert (await status(node, running)).exit_code == 137


async def test_stop_with_timeout_0_kills_at_once(node, running):
    await stop_container(node.parts, running, 0)
    assert node.world.signals == [(running, signal.SIGKILL)]


async def test_stop_of_a_created_container_ends_it(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config())
    await stop_container(node.parts, container, 30)
    assert (await status(node, container)).state == api_pb2.CONTAINER_EXITED


async def test_stop_and_remove_accept_a_missing_container(node):
    await stop_container(node.parts, "a" * 64, 1)
    await remove_container(node.parts, "a" * 64)


async def test_stop_signal_of_the_pod_overrides_the_images(node, sandbox):
    polite = await create_container(node.parts, sandbox, container_config("p", "polite"))
    wanted = container_config("w", "polite", stop_signal=api_pb2.SIGRTMINPLUS3)
    chosen = await create_container(node.parts, sandbox, wanted)
    assert (await status(node, polite)).stop_signal == api_pb2.SIGINT
    assert (await status(node, chosen)).stop_signal == api_pb2.SIGRTMINPLUS3
    await start_container(node.parts, chosen)
    await stop_container(node.parts, chosen, 5)
    assert node.world.signals == [(chosen, signal.SIGRTMIN + 3)]


async def test_unknown_stop_signal_of_an_image_is_sigterm(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config(image="unknown signal"))
    assert (await status(node, container)).stop_signal == api_pb2.SIGTERM


async def test_remove_kills_the_container_and_is_idempotent(node, running):
    await asyncio.gather(*(remove_container(node.parts, running) for _ in range(3)))
    assert running not in node.world.runtime
    assert not node.world.snapshots


async def test_failed_removal_can_be_repeated(node, running):
    node.world.fail.add("release")
    with pytest.raises(Internal):
        await remove_container(node.parts, running)
    assert (await status(node, running)).state == api_pb2.CONTAINER_EXITED
    node.world.fail.clear()
    await remove_container(node.parts, running)
    assert not node.world.snapshots


async def test_stopped_sandbox_refuses_new_containers(node, sandbox):
    created = await create_container(node.parts, sandbox, container_config("early"))
    await stop_pod_sandbox(node.parts, sandbox)
    with pytest.raises(FailedPrecondition, match="not ready"):
        await create_container(node.parts, sandbox, container_config())
    with pytest.raises(FailedPrecondition):
        await start_container(node.parts, created)


async def test_invalid_create_request_is_refused(node, sandbox):
    with pytest.raises(NotFound, match="missing"):
        await create_container(node.parts, sandbox, container_config(image="missing"))
    with pytest.raises(InvalidArgument):
        await create_container(node.parts, sandbox, container_config(name="x" * 10_000))
    with pytest.raises(InvalidArgument):
        await create_container(node.parts, "../../etc", container_config())
    pod = node.parts.ledger.sandboxes.get(sandbox).config
    pod.log_directory = str(node.directory)
    for path in ("../../../etc/passwd", "/etc/passwd", "directory/", "x" * 256):
        with pytest.raises(InvalidArgument, match="log path"):
            await create_container(node.parts, sandbox, container_config(log_path=path))
    with pytest.raises(NotFound):
        await create_container(node.parts, "b" * 64, container_config())
    assert not node.world.runtime
    assert not node.world.snapshots


async def test_list_returns_sandboxes_that_match_the_filter(node, sandbox, running):
    other = await run_pod_sandbox(node.parts, pod_config("other"), "runc")
    there = await create_container(node.parts, other, container_config(labels={"a": "b"}))

    def ids(**wanted):
        return {c.id for c in list_containers(node.parts, api_pb2.ContainerFilter(**wanted))}

    assert ids() == {running, there}
    assert ids(id=there) == ids(id=there[:12]) == {there}
    assert ids(pod_sandbox_id=sandbox) == ids(pod_sandbox_id=sandbox[:12]) == {running}
    assert ids(id=there, pod_sandbox_id=sandbox) == set()
    assert ids(pod_sandbox_id="none") == set()
    assert ids(label_selector={"a": "b"}) == {there}
    assert ids(state=api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_RUNNING)) == {running}


async def test_update_merges_new_limits_into_old_ones(node, running):
    limits = api_pb2.LinuxContainerResources(cpu_shares=512, memory_limit_in_bytes=1 << 26)
    await update_container_resources(node.parts, running, limits)
    await update_container_resources(node.parts, running, api_pb2.LinuxContainerResources(cpu_shares=100))
    linux = (await status(node, running)).resources.linux
    assert (linux.cpu_shares, linux.memory_limit_in_bytes) == (100, 1 << 26)
    last = node.parts.executors["runc"].updates[-1]
    assert last["cpu"]["shares"] == 100
    assert last["memory"]["checkBeforeUpdate"], "nobody is killed by a limit that is too low"
    node.world.fail.add("update")
    with pytest.raises(Internal):
        await update_container_resources(node.parts, running, api_pb2.LinuxContainerResources(cpu_shares=7))
    assert (await status(node, running)).resources.linux.cpu_shares == 100


async def test_update_of_an_ended_container_is_only_recorded(node, running):
    await stop_container(node.parts, running, 0)
    await update_container_resources(node.parts, running, api_pb2.LinuxContainerResources(cpu_shares=7))
    assert (await status(node, running)).resources.linux.cpu_shares == 7
    assert node.parts.executors["runc"].updates == []


async def test_verbose_status_has_the_limits_in_force(node, running):
    await update_container_resources(node.parts, running, api_pb2.LinuxContainerResources(cpu_shares=100))
    verbose = await container_status(node.parts, running, verbose=True)
    resources = json.loads(verbose.info["info"])["runtimeSpec"]["linux"]["resources"]
    assert resources["cpu"] == {"shares": 100}
    assert resources["devices"]


async def test_update_is_recorded_before_it_is_applied(node, running):
    node.world.hold["update"] = asyncio.Event()
    limits = api_pb2.LinuxContainerResources(cpu_shares=77)
    call = asyncio.create_task(update_container_resources(node.parts, running, limits))
    await node.world.held.wait()
    with closing(sqlite3.connect(node.directory / "state/ledger.db")) as ledger:
        ((intent,),) = ledger.execute("SELECT updating FROM containers").fetchall()
    assert api_pb2.LinuxContainerResources.FromString(intent) == limits
    node.world.hold["update"].set()
    await call
    assert not node.parts.ledger.containers.get(running).updating.ByteSize()


async def test_update_that_cannot_be_recorded_is_not_applied(node, running):
    with closing(sqlite3.connect(node.directory / "state/ledger.db")) as ledger:
        ledger.execute("ALTER TABLE containers RENAME TO full")
        with pytest.raises(HostError, match="writing the ledger"):
            await update_container_resources(
                node.parts, running, api_pb2.LinuxContainerResources(cpu_shares=7)
            )
        ledger.execute("ALTER TABLE full RENAME TO containers")
    assert node.parts.executors["runc"].updates == []
    assert (await status(node, running)).resources.linux.cpu_shares == 0


async def test_exec_and_reopen_need_a_running_container(node, running):
    answer = await exec_sync(node.parts, running, ["echo", "hi"], 0)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (3, b"echo hi", b"None")
    await reopen_container_log(node.parts, running)
    with pytest.raises(InvalidArgument):
        await exec_sync(node.parts, running, [], 0)
    await stop_container(node.parts, running, 0)
    with pytest.raises(FailedPrecondition):
        await exec_sync(node.parts, running, ["true"], 0)
    with pytest.raises(FailedPrecondition):
        await reopen_container_log(node.parts, running)
