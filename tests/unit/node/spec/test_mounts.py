from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.inputs import Pod
from noderuntime.node.spec.mounts import container_mounts, mount_peers, rootfs_propagation


def config(*mounts: dict[str, Any], **context: bool) -> api_pb2.ContainerConfig:
    made = api_pb2.ContainerConfig(mounts=[api_pb2.Mount(**one) for one in mounts])
    made.linux.security_context.MergeFrom(api_pb2.LinuxContainerSecurityContext(**context))
    return made


def by_place(mounts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["destination"]: one for one in mounts}


def test_every_container_has_the_kernels_and_the_pods_mounts(pod: Pod) -> None:
    mounts = by_place(container_mounts(pod, config()))
    assert {"/proc", "/dev", "/dev/pts", "/dev/shm", "/sys", "/sys/fs/cgroup", "/etc/resolv.conf"} <= set(
        mounts
    )
    assert mounts["/dev/shm"]["source"] == str(pod.shm)
    assert "ro" in mounts["/sys"]["options"]
    assert "rw" in mounts["/etc/hostname"]["options"]


def test_privileged_containers_write_to_sys_and_read_only_ones_not_to_etc(pod: Pod) -> None:
    mounts = by_place(container_mounts(pod, config(privileged=True, readonly_rootfs=True)))
    assert "rw" in mounts["/sys"]["options"]
    assert "rw" in mounts["/sys/fs/cgroup"]["options"]
    assert "ro" in mounts["/etc/hostname"]["options"]


def test_the_pods_mounts_replace_ours_and_come_parents_first(pod: Pod, tmp_path: Path) -> None:
    asked = [
        {"container_path": "/data/a/b", "host_path": str(tmp_path)},
        {"container_path": "/data", "host_path": str(tmp_path)},
        {"container_path": "/etc/hostname", "host_path": str(tmp_path), "readonly": True},
        {"container_path": "dev/shm/", "host_path": str(tmp_path)},
    ]
    places = [one["destination"] for one in container_mounts(pod, config(*asked))]
    assert places.count("/etc/hostname") == places.count("/dev/shm") == 1
    assert places.index("/data") < places.index("/data/a/b")


def test_the_whole_of_dev_may_be_the_nodes(pod: Pod) -> None:
    places = by_place(container_mounts(pod, config({"container_path": "/dev", "host_path": "/dev"})))
    assert not any(place.startswith("/dev/") for place in places)


def test_options_of_a_mount(pod: Pod, tmp_path: Path) -> None:
    asked = [
        {"container_path": "/a", "host_path": str(tmp_path)},
        {"container_path": "/b", "host_path": str(tmp_path), "readonly": True},
        {"container_path": "/c", "host_path": str(tmp_path), "readonly": True, "recursive_read_only": True},
    ]
    mounts = by_place(container_mounts(pod, config(*asked)))
    assert mounts["/a"]["options"] == ["rbind", "rprivate", "rw"]
    assert mounts["/b"]["options"] == ["rbind", "rprivate", "ro"]
    assert mounts["/c"]["options"] == ["rbind", "rprivate", "rro"]


def test_a_missing_source_is_made_and_a_link_is_followed(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").mkdir()
    asked = [
        {"container_path": "/a", "host_path": str(tmp_path / "new/deep")},
        {"container_path": "/b", "host_path": str(tmp_path / "link")},
    ]
    mounts = by_place(container_mounts(pod, config(*asked)))
    assert (tmp_path / "new/deep").is_dir()
    assert mounts["/b"]["source"] == str(tmp_path / "target")


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ({"container_path": "/a", "host_path": ""}, "not an absolute path"),
        ({"container_path": "/a", "host_path": "rel"}, "not an absolute path"),
        ({"container_path": "/a", "host_path": "/x\0y"}, "NUL"),
        ({"container_path": "", "host_path": "/tmp"}, "cannot go to"),
        ({"container_path": "/../..", "host_path": "/tmp"}, "cannot go to"),
        ({"container_path": "/a", "host_path": "/proc/version/below"}, "mount source"),
        ({"container_path": "/a", "host_path": "/tmp", "recursive_read_only": True}, "recursively"),
        ({"container_path": "/a", "host_path": "/tmp", "propagation": 7}, "propagation 7"),
    ],
)
def test_bad_mounts_are_the_pods_fault(pod: Pod, mount: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        container_mounts(pod, config(mount))
    assert words in str(error.value)


def test_an_image_volume_is_bound_from_where_it_is_mounted(pod: Pod) -> None:
    image = {"container_path": "/a", "image": api_pb2.ImageSpec(image="i")}
    mounts = by_place(container_mounts(pod, config(image), {0: Path("/on/the/node")}))
    assert mounts["/a"]["source"] == "/on/the/node"
    assert set(mounts["/a"]["options"]) == {"rbind", "rprivate", "ro", "nodev", "nosuid"}


@pytest.mark.parametrize(
    ("asked", "expected"), [([], ""), ([0], ""), ([0, 1], "rslave"), ([1, 2], "rshared")]
)
def test_the_root_is_as_open_as_its_mounts_need(asked: list[int], expected: str) -> None:
    assert rootfs_propagation(config(*({"propagation": one} for one in asked))) == expected


def test_peers_are_those_of_the_nearest_mount(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n"
        "2 1 8:2 / /data rw,relatime - ext4 /dev/b rw\n"
        "3 1 8:3 / /with\\040space rw master:4 - ext4 /dev/c rw\n"
    )
    assert mount_peers("/database", table) == ["shared:1"]
    assert mount_peers("/data/x", table) == []
    assert mount_peers("/with space", table) == ["master:4"]
