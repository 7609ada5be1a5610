"""Checkpoints: an archive with all that there is to know, or none."""

import asyncio
import json
import tarfile
from pathlib import Path

import pytest
from fakes import container_config, pod_config
from restarts import until

from noderuntime.core.errors import FailedPrecondition, Internal, InvalidArgument, NotFound
from noderuntime.lifecycle.containers.checkpoint import DIRECTORY, checkpoint_container
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.node.host.base import IdRange, UserNamespace
from noderuntime.node.host.changes import upper_directory, write_changes


@pytest.fixture
async def container(node):
    sandbox = await run_pod_sandbox(
        node.parts, pod_config(log_directory=str(node.directory / "logs")), "runc"
    )
    made = await create_container(node.parts, sandbox, container_config(log_path="app.log"))
    (node.directory / "logs/app.log").write_text("output\n")
    return made


async def test_archive_identifies_its_container(node, container, tmp_path):
    await start_container(node.parts, container)
    target = tmp_path / "checkpoint.tar"
    await checkpoint_container(node.parts, container, str(target), 0)
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
        identity = json.load(archive.extractfile("./config.dump"))
        assert archive.extractfile("./container.log").read() == b"output\n"
        assert json.load(archive.extractfile("./spec.dump"))["ociVersion"]
        assert json.load(archive.extractfile("./status.dump"))["state"] == "CONTAINER_RUNNING"
    assert names >= {"checkpoint/pages-1.img", "config.dump", "spec.dump", "status.dump", "container.log"}
    assert (identity["id"], identity["name"], identity["runtime"]) == (container, "app", "runc")
    assert not list((node.directory / "state" / DIRECTORY).iterdir())
    assert [path.name for path in tmp_path.glob(".*partial")] == []


@pytest.mark.parametrize(("asked", "seconds"), [(0, 10.0), (-1, 10.0), (90, 90.0)])
async def test_checkpoint_timeout_of_0_is_the_default(node, container, tmp_path, asked, seconds):
    await start_container(node.parts, container)
    await checkpoint_container(node.parts, container, str(tmp_path / "c.tar"), asked)
    assert node.parts.executors["runc"].dump_seconds == [seconds]


async def test_container_runs_after_a_failed_checkpoint(node, container, tmp_path):
    await start_container(node.parts, container)
    node.world.fail.add("checkpoint")
    with pytest.raises(Internal):
        await checkpoint_container(node.parts, container, str(tmp_path / "c.tar"), 0)
    assert node.world.frozen == set()
    assert node.parts.ledger.containers.get(container).checkpointing_at == 0


async def test_failed_release_is_repeated_after_the_checkpoint(node, container, tmp_path):
    await start_container(node.parts, container)
    record = node.parts.ledger.containers.get(container)
    netns = Path(node.parts.ledger.sandboxes.get(record.sandbox_id).netns)
    node.world.locked.add(netns)
    node.world.fail.add("remove network lock")
    target = tmp_path / "checkpoint.tar"
    await checkpoint_container(node.parts, container, str(target), 0)
    assert target.exists()
    await until(lambda: node.pauses.seconds == [1])
    assert record.checkpointing_at
    node.world.fail.clear()
    node.pauses.end()
    await until(lambda: not record.checkpointing_at)
    assert node.world.locked == set()


async def test_repeated_release_ends_with_its_pod(node, container, tmp_path):
    await start_container(node.parts, container)
    record = node.parts.ledger.containers.get(container)
    node.world.fail.add("remove network lock")
    await checkpoint_container(node.parts, container, str(tmp_path / "c.tar"), 0)
    await until(lambda: node.pauses.seconds == [1])
    await remove_pod_sandbox(node.parts, record.sandbox_id)
    node.pauses.end()
    await until(lambda: not len(node.parts.retries))


async def test_dumps_of_one_pod_run_one_after_the_other(node, container, tmp_path):
    sandbox = node.parts.ledger.containers.get(container).sandbox_id
    other = await create_container(node.parts, sandbox, container_config("other"))
    for made in (container, other):
        await start_container(node.parts, made)
    node.world.hold["checkpoint"] = gate = asyncio.Event()
    node.world.trace.clear()
    calls = [
        asyncio.create_task(checkpoint_container(node.parts, made, str(tmp_path / made), 0))
        for made in (container, other)
    ]
    await node.world.held.wait()
    await asyncio.sleep(0.05)
    begun = node.world.trace.count("checkpoint")
    gate.set()
    await asyncio.gather(*calls)
    assert begun == 1
    steps = [step for step in node.world.trace if step in ("checkpoint", "remove network lock")]
    assert steps == ["checkpoint", "remove network lock"] * 2


async def test_failed_checkpoint_leaves_nothing(node, container, tmp_path):
    with pytest.raises(FailedPrecondition, match="not running"):
        await checkpoint_container(node.parts, container, str(tmp_path / "c.tar"), 0)
    await start_container(node.parts, container)
    node.world.fail.add("checkpoint")
    with pytest.raises(Internal):
        await checkpoint_container(node.parts, container, str(tmp_path / "c.tar"), 0)
    assert not (tmp_path / "c.tar").exists()
    assert not list((node.directory / "state" / DIRECTORY).iterdir())
    with pytest.raises(NotFound):
        await checkpoint_container(node.parts, "a" * 64, str(tmp_path / "c.tar"), 0)


@pytest.mark.parametrize("location", ["", "c.tar", "/", "/tmp/", "/tmp/../etc/c.tar", "/no/such/place/c.tar"])
async def test_invalid_checkpoint_location_is_refused(node, container, location):
    await start_container(node.parts, container)
    with pytest.raises(InvalidArgument, match="checkpoint location"):
        await checkpoint_container(node.parts, container, location, 0)


def test_changes_are_a_layer_without_followed_links(tmp_path):
    upper = tmp_path / "upper"
    (upper / "etc").mkdir(parents=True)
    (upper / "etc/made").write_text("by the container")
    (upper / "etc/passwd").symlink_to("/etc/shadow")
    (upper / "to-etc").symlink_to("/etc")
    write_changes(upper, tmp_path / "layer.tar", None)
    with tarfile.open(tmp_path / "layer.tar") as layer:
        entries = {entry.name: entry for entry in layer}
        assert layer.extractfile("etc/made").read() == b"by the container"
    assert entries.keys() == {"etc", "etc/made", "etc/passwd", "to-etc"}
    assert entries["etc/passwd"].issym()
    assert entries["to-etc"].issym()


def test_layer_has_the_owners_inside_the_container(tmp_path):
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/file").touch()
    found = (tmp_path / "upper/file").stat()
    user = UserNamespace(tmp_path, IdRange(0, found.st_uid, 9), IdRange(0, found.st_gid + 5, 9))
    write_changes(tmp_path / "upper", tmp_path / "layer.tar", user)
    with tarfile.open(tmp_path / "layer.tar") as layer:
        entry = layer.getmember("file")
    assert (entry.uid, entry.gid) == (0, 0)


def test_upper_directory_is_that_of_the_last_mount(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 0:1 / /a/rootfs rw - overlay overlay rw,lowerdir=l,upperdir=/old/fs,workdir=/w\n"
        "2 1 0:2 / /a/rootfs rw - overlay overlay rw,lowerdir=l:m,upperdir=/new/fs,workdir=/w,uuid=on\n"
        "3 1 8:1 / /b/rootfs rw shared:1 - ext4 /dev/x rw\n"
    )
    assert str(upper_directory(tmp_path / "/a/rootfs", table)) == "/new/fs"
    assert upper_directory(tmp_path / "/b/rootfs", table) is None
    assert upper_directory(tmp_path / "/c/rootfs", table) is None
