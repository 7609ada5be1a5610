"""Anonymous volumes of an image: /filled, a symlink to a directory of the image, and /made/for/it."""

import json
import os

import pytest
from fakes import container_config, pod_config

from noderuntime.core.errors import Internal, ResourceExhausted
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.remove import remove_container
from noderuntime.lifecycle.containers.status import container_status
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.recovery import recover, tear_down

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can set owners")


@pytest.fixture
async def sandbox(node):
    return await run_pod_sandbox(node.parts, pod_config(), "runc")


def mounts(node, container):
    spec = json.loads(node.parts.paths.container(container).spec.read_bytes())
    return {mount["destination"]: mount for mount in spec["mounts"]}


async def test_volumes_are_directories_of_the_state_directory(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config(image="volumes"))
    made = mounts(node, container)
    top = node.directory / "state/volumes" / container
    assert made["/filled"]["source"] == str(top / "0")
    assert made["/filled"]["options"] == ["rbind", "rprivate", "rw"]
    assert (top / "0/file").read_text() == "of the image"
    assert list((top / "1").iterdir()) == []
    assert made["/made/for/it"]["source"] == str(top / "1")
    assert "/" not in made
    status = await container_status(node.parts, container)
    assert list(status.status.mounts) == []


async def test_requested_mount_replaces_a_volume(node, sandbox):
    mount = api_pb2.Mount(container_path="/filled/", host_path=str(node.directory))
    container = await create_container(node.parts, sandbox, container_config(image="volumes", mounts=[mount]))
    assert mounts(node, container)["/filled"]["source"] == str(node.directory)
    assert len(list((node.directory / "state/volumes" / container).iterdir())) == 1


async def test_volumes_are_removed_with_the_container(node, sandbox):
    container = await create_container(node.parts, sandbox, container_config(image="volumes"))
    await remove_container(node.parts, container)
    assert "volumes" not in node.left()


async def test_failed_creation_leaves_no_volumes(node, sandbox):
    node.world.fail.add("create")
    with pytest.raises(Internal):
        await create_container(node.parts, sandbox, container_config(image="volumes"))
    assert "volumes" not in node.left()


async def test_volumes_that_leave_too_little_disk_are_refused(node, sandbox):
    images = node.parts.config.images.model_copy(update={"min_free_disk": 1 << 60})
    node.parts.config = node.parts.config.model_copy(update={"images": images})
    with pytest.raises(ResourceExhausted, match=r"volume '/filled': .*images\.min_free_disk"):
        await create_container(node.parts, sandbox, container_config(image="volumes"))
    assert "volumes" not in node.left()


async def test_volumes_of_a_lost_ledger_are_removed(node, sandbox):
    await create_container(node.parts, sandbox, container_config(image="volumes"))
    for record in list(node.parts.ledger.containers):
        await node.parts.ledger.containers.drop(record)
    await node.restart()
    await recover(node.parts, "boot-1")
    await tear_down(node.parts)
    assert "volumes" not in node.left()
