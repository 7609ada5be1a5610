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
NAMESPACE = UserNamespace(PIN, IdRange(0, 100000, 65536), IdRange(0, 200000, 65536))


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
    return dataclasses.replace(pod, user=NAMESPACE)


def test_user_namespace_follows_the_request() -> None:
    assert user_namespace(options(), PIN) == NAMESPACE
    assert NAMESPACE.root == (100000, 200000)
    assert user_namespace(api_pb2.NamespaceOption(), PIN) is None
    assert user_namespace(api_pb2.NamespaceOption(userns_options={"mode": api_pb2.NODE}), PIN) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mode": api_pb2.NODE}, "does not allow ID mappings"),
        ({"mode": api_pb2.CONTAINER}, "mode 1"),
        ({"mode": api_pb2.TARGET}, "mode 3"),
        ({"mode": 17}, "mode 17"),
        ({"uids": []}, "user IDs, not 0"),
        ({"gids": []}, "group IDs, not 0"),
        ({"uids": [{"length": 1}, {"length": 1}]}, "not 2"),
        ({"uids": [{"length": 0}]}, "0:0:0"),
        ({"uids": [{"container_id": 1, "length": 1}]}, "1:0:1"),
        ({"gids": [{"host_id": 2**32 - 1, "length": 1}]}, "must start at container ID 0"),
        ({"gids": [{"host_id": 1, "length": 2**32 - 1}]}, "must start at container ID 0"),
    ],
)
def test_invalid_user_namespace_is_refused(change: dict[str, Any], expected: str) -> None:
    requested = options()
    for field in change:
        requested.userns_options.ClearField(field)  # type: ignore[arg-type]
    requested.MergeFrom(api_pb2.NamespaceOption(userns_options=change))
    with pytest.raises(InvalidArgument, match=expected):
        user_namespace(requested, PIN)


@pytest.mark.parametrize("shared", ["pid", "ipc"])
def test_user_namespace_refuses_the_nodes_pid_and_ipc(shared: str) -> None:
    with pytest.raises(InvalidArgument, match="PID or IPC namespace"):
        user_namespace(options(**{shared: api_pb2.NODE}), PIN)


def container(rootfs: Path, **context: Any) -> ContainerInput:
    config = api_pb2.ContainerConfig(command=["x"])
    config.linux.security_context.namespace_options.CopyFrom(options())
    config.linux.security_context.MergeFrom(api_pb2.LinuxContainerSecurityContext(**context))
    return ContainerInput("6" * 64, config, ImageConfig(), rootfs)


def test_specs_join_the_user_namespace_with_its_mappings(inside: Pod, rootfs: Path, facts: HostFacts) -> None:
    for spec in (
        container_spec(inside, container(rootfs), facts),
        root_spec(inside, rootfs, ["/pause"], facts),
    ):
        assert {"type": "user", "path": str(PIN)} in spec["linux"]["namespaces"]
        assert spec["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 100000, "size": 65536}]
        assert spec["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 200000, "size": 65536}]


def test_unmapped_users_and_groups_are_refused(inside: Pod, rootfs: Path, facts: HostFacts) -> None:
    container_spec(inside, container(rootfs, run_as_user={"value": 65535}), facts)
    with pytest.raises(InvalidArgument, match="user 65536 is not mapped"):
        container_spec(inside, container(rootfs, run_as_user={"value": 65536}), facts)
    with pytest.raises(InvalidArgument, match="group 70000 is not mapped"):
        container_spec(inside, container(rootfs, supplemental_groups=[70000]), facts)


def test_user_namespace_of_container_and_pod_must_match(
    inside: Pod, pod: Pod, rootfs: Path, facts: HostFacts
) -> None:
    plain = api_pb2.ContainerConfig(command=["x"])
    with pytest.raises(InvalidArgument, match="differs from its pod's"):
        container_spec(inside, ContainerInput("6" * 64, plain, ImageConfig(), rootfs), facts)
    pod.config.Clear()
    with pytest.raises(InvalidArgument, match="differs from its pod's"):
        container_spec(pod, container(rootfs), facts)


def test_sys_is_bind_mounted_with_the_nodes_network(inside: Pod) -> None:
    own = {mount["destination"]: mount for mount in container_mounts(inside, api_pb2.ContainerConfig())}
    assert own["/sys"]["type"] == "sysfs"
    shared = dataclasses.replace(inside, namespaces={"ipc": "/run/s/ipc"})
    bound = {mount["destination"]: mount for mount in container_mounts(shared, api_pb2.ContainerConfig())}
    assert bound["/sys"]["type"] == "bind"
    assert "rro" in bound["/sys"]["options"]


def test_mount_id_mappings_are_passed_on(pod: Pod, tmp_path: Path) -> None:
    ids = [api_pb2.IDMapping(container_id=0, host_id=7, length=9)]
    requested = api_pb2.Mount(container_path="/v", host_path=str(tmp_path), uidMappings=ids, gidMappings=ids)
    mounts = container_mounts(pod, api_pb2.ContainerConfig(mounts=[requested]))
    (volume,) = (mount for mount in mounts if mount["destination"] == "/v")
    assert volume["uidMappings"] == volume["gidMappings"] == [{"containerID": 0, "hostID": 7, "size": 9}]
    requested.ClearField("gidMappings")
    with pytest.raises(InvalidArgument, match="both user and group IDs"):
        container_mounts(pod, api_pb2.ContainerConfig(mounts=[requested]))
