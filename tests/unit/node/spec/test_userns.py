from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import ImageConfig
from noderuntime.node.host.base import IdRange, UserNamespace
from noderuntime.node.spec.builder import container_spec, root_spec
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.inputs import ContainerInput, Pod
from noderuntime.node.spec.mounts import container_mounts
from noderuntime.node.spec.userns import user_namespace

PIN = Path("/run/s/user")
OURS = UserNamespace(PIN, IdRange(0, 100000, 65536), IdRange(0, 200000, 65536))


def options(**fields: Any) -> api_pb2.NamespaceOption:
    return api_pb2.NamespaceOption(
        userns_options={
            "mode": api_pb2.POD,
            "uids": [{"host_id": 100000, "length": 65536}],
            "gids": [{"host_id": 200000, "length": 65536}],
        },
        **fields,
    )


@pytest.fixture
def inside(pod: Pod) -> Pod:
    pod.config.linux.security_context.namespace_options.CopyFrom(options())
    return dataclasses.replace(pod, user=OURS)


def test_the_namespace_is_what_was_asked_for() -> None:
    assert user_namespace(options(), PIN) == OURS
    assert OURS.root == (100000, 200000)
    assert user_namespace(api_pb2.NamespaceOption(), PIN) is None
    assert user_namespace(api_pb2.NamespaceOption(userns_options={"mode": api_pb2.NODE}), PIN) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": api_pb2.NODE}, "no ID mappings"),
        ({"mode": api_pb2.CONTAINER}, "mode 1"),
        ({"mode": api_pb2.TARGET}, "mode 3"),
        ({"mode": 17}, "mode 17"),
        ({"uids": []}, "user IDs, not 0"),
        ({"gids": []}, "group IDs, not 0"),
        ({"uids": [{"length": 1}, {"length": 1}]}, "not 2"),
        ({"uids": [{"length": 0}]}, "0:0:0"),
        ({"uids": [{"container_id": 1, "length": 1}]}, "1:0:1"),
        ({"gids": [{"host_id": 2**32 - 1, "length": 1}]}, "begins with root"),
        ({"gids": [{"host_id": 1, "length": 2**32 - 1}]}, "begins with root"),
    ],
)
def test_what_can_be_no_user_namespace(change: dict[str, Any], words: str) -> None:
    asked = options()
    for field in change:
        asked.userns_options.ClearField(field)  # type: ignore[arg-type]
    asked.MergeFrom(api_pb2.NamespaceOption(userns_options=change))
    with pytest.raises(InvalidArgument, match=words):
        user_namespace(asked, PIN)


@pytest.mark.parametrize("shared", ["pid", "ipc"])
def test_the_nodes_processes_and_ipc_are_not_to_be_had(shared: str) -> None:
    with pytest.raises(InvalidArgument, match="processes or IPC"):
        user_namespace(options(**{shared: api_pb2.NODE}), PIN)


def container(rootfs: Path, **context: Any) -> ContainerInput:
    config = api_pb2.ContainerConfig(command=["x"])
    config.linux.security_context.namespace_options.CopyFrom(options())
    config.linux.security_context.MergeFrom(api_pb2.LinuxContainerSecurityContext(**context))
    return ContainerInput("6" * 64, config, ImageConfig(), rootfs)


def test_containers_join_it_and_say_what_it_maps(inside: Pod, rootfs: Path, facts: HostFacts) -> None:
    for spec in (
        container_spec(inside, container(rootfs), facts),
        root_spec(inside, rootfs, ["/pause"], facts),
    ):
        assert {"type": "user", "path": str(PIN)} in spec["linux"]["namespaces"]
        assert spec["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 100000, "size": 65536}]
        assert spec["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 200000, "size": 65536}]


def test_users_and_groups_must_be_inside(inside: Pod, rootfs: Path, facts: HostFacts) -> None:
    container_spec(inside, container(rootfs, run_as_user={"value": 65535}), facts)
    with pytest.raises(InvalidArgument, match="no user 65536"):
        container_spec(inside, container(rootfs, run_as_user={"value": 65536}), facts)
    with pytest.raises(InvalidArgument, match="no group 70000"):
        container_spec(inside, container(rootfs, supplemental_groups=[70000]), facts)


def test_a_container_cannot_have_another_than_its_pod(
    inside: Pod, pod: Pod, rootfs: Path, facts: HostFacts
) -> None:
    plain = api_pb2.ContainerConfig(command=["x"])
    with pytest.raises(InvalidArgument, match="not its pod's"):
        container_spec(inside, ContainerInput("6" * 64, plain, ImageConfig(), rootfs), facts)
    pod.config.Clear()
    with pytest.raises(InvalidArgument, match="not its pod's"):
        container_spec(pod, container(rootfs), facts)


def test_sys_is_bound_where_the_network_is_the_nodes(inside: Pod) -> None:
    own = {one["destination"]: one for one in container_mounts(inside, api_pb2.ContainerConfig())}
    assert own["/sys"]["type"] == "sysfs"
    shared = dataclasses.replace(inside, namespaces={"ipc": "/run/s/ipc"})
    bound = {one["destination"]: one for one in container_mounts(shared, api_pb2.ContainerConfig())}
    assert bound["/sys"]["type"] == "bind"
    assert "rro" in bound["/sys"]["options"]


def test_volumes_are_mapped_as_they_are_asked_to_be(pod: Pod, tmp_path: Path) -> None:
    ids = [api_pb2.IDMapping(container_id=0, host_id=7, length=9)]
    asked = api_pb2.Mount(container_path="/v", host_path=str(tmp_path), uidMappings=ids, gidMappings=ids)
    volume = container_mounts(pod, api_pb2.ContainerConfig(mounts=[asked]))[-1]
    assert volume["uidMappings"] == volume["gidMappings"] == [{"containerID": 0, "hostID": 7, "size": 9}]
    asked.ClearField("gidMappings")
    with pytest.raises(InvalidArgument, match="only one of users and groups"):
        container_mounts(pod, api_pb2.ContainerConfig(mounts=[asked]))
