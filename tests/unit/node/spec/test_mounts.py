from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.inputs import Pod
from noderuntime.node.spec.mounts import container_mounts, mount_peers, rootfs_propagation


def config(*mounts: dict[str, Any], **context: bool) -> api_pb2.ContainerConfig:
    made = api_pb2.ContainerConfig(mounts=[api_pb2.Mount(**mount) for mount in mounts])
    made.linux.security_context.MergeFrom(api_pb2.LinuxContainerSecurityContext(**context))
    return made


def by_destination(mounts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in mounts}


def test_container_has_kernel_and_pod_mounts(pod: Pod) -> None:
    mounts = by_destination(container_mounts(pod, config()))
    assert {"/proc", "/dev", "/dev/pts", "/dev/shm", "/sys", "/sys/fs/cgroup", "/etc/resolv.conf"} <= set(
        mounts
    )
    assert mounts["/dev/shm"]["source"] == str(pod.shm)
    assert "ro" in mounts["/sys"]["options"]
    assert "rw" in mounts["/etc/hostname"]["options"]


def test_privileged_container_can_write_to_sys(pod: Pod) -> None:
    mounts = by_destination(container_mounts(pod, config(privileged=True, readonly_rootfs=True)))
    assert "rw" in mounts["/sys"]["options"]
    assert "rw" in mounts["/sys/fs/cgroup"]["options"]
    assert "ro" in mounts["/etc/hostname"]["options"]


def test_requested_mounts_replace_defaults_parents_first(pod: Pod, tmp_path: Path) -> None:
    requested = [
        {"container_path": "/data/a/b", "host_path": str(tmp_path)},
        {"container_path": "/data", "host_path": str(tmp_path)},
        {"container_path": "/etc/hostname", "host_path": str(tmp_path), "readonly": True},
        {"container_path": "dev/shm/", "host_path": str(tmp_path)},
    ]
    destinations = [mount["destination"] for mount in container_mounts(pod, config(*requested))]
    assert destinations.count("/etc/hostname") == destinations.count("/dev/shm") == 1
    assert destinations.index("/data") < destinations.index("/data/a/b")


def test_pod_files_lie_on_requested_parents(pod: Pod, tmp_path: Path) -> None:
    requested = [
        {"container_path": "/etc", "host_path": str(tmp_path)},
        {"container_path": "/dev", "host_path": "/dev"},
        {"container_path": "/etc/hosts", "host_path": str(tmp_path)},
    ]
    mounts = container_mounts(pod, config(*requested))
    destinations = [mount["destination"] for mount in mounts]
    for file in ("/etc/resolv.conf", "/etc/hostname", "/etc/hosts"):
        assert destinations.index("/etc") < destinations.index(file)
    assert destinations.index("/dev") < destinations.index("/dev/shm")
    assert by_destination(mounts)["/dev/shm"]["source"] == str(pod.shm)


@pytest.mark.parametrize(("path", "kept"), [("/dev", ["/dev/shm"]), ("/sys", [])])
def test_requested_mount_hides_kernel_filesystems_below_it(pod: Pod, path: str, kept: list[str]) -> None:
    destinations = by_destination(container_mounts(pod, config({"container_path": path, "host_path": path})))
    assert [one for one in destinations if one.startswith(f"{path}/")] == kept


def test_mount_options_follow_the_access_mode(pod: Pod, tmp_path: Path) -> None:
    requested = [
        {"container_path": "/a", "host_path": str(tmp_path)},
        {"container_path": "/b", "host_path": str(tmp_path), "readonly": True},
        {"container_path": "/c", "host_path": str(tmp_path), "readonly": True, "recursive_read_only": True},
    ]
    mounts = by_destination(container_mounts(pod, config(*requested)))
    assert mounts["/a"]["options"] == ["rbind", "rprivate", "rw"]
    assert mounts["/b"]["options"] == ["rbind", "rprivate", "ro"]
    assert mounts["/c"]["options"] == ["rbind", "rprivate", "rro"]


def test_mount_source_is_created_or_its_symlink_resolved(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").mkdir()
    requested = [
        {"container_path": "/a", "host_path": str(tmp_path / "new/deep")},
        {"container_path": "/b", "host_path": str(tmp_path / "link")},
    ]
    mounts = by_destination(container_mounts(pod, config(*requested)))
    assert (tmp_path / "new/deep").is_dir()
    assert mounts["/b"]["source"] == str(tmp_path / "target")


def test_mount_source_that_is_a_dangling_link_is_refused(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    mount = {"container_path": "/a", "host_path": str(tmp_path / "link")}
    with pytest.raises(InvalidArgument, match="is a symbolic link to a missing path"):
        container_mounts(pod, config(mount))
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ({"container_path": "/a", "host_path": ""}, "not an absolute path"),
        ({"container_path": "/a", "host_path": "rel"}, "not an absolute path"),
        ({"container_path": "/a", "host_path": "/x\0y"}, "NUL"),
        ({"container_path": "", "host_path": "/tmp"}, "container_path must not be"),
        ({"container_path": "/../..", "host_path": "/tmp"}, "container_path must not be"),
        ({"container_path": "/a", "host_path": "/proc/version/below"}, "mount source"),
        ({"container_path": "/a", "host_path": "/tmp", "recursive_read_only": True}, "recursively"),
        ({"container_path": "/a", "host_path": "/tmp", "propagation": 7}, "propagation 7"),
    ],
)
def test_invalid_mount_is_refused(pod: Pod, mount: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        container_mounts(pod, config(mount))
    assert expected in str(error.value)


def test_image_volume_is_bind_mounted_read_only(pod: Pod) -> None:
    image = {"container_path": "/a", "image": api_pb2.ImageSpec(image="i")}
    mounts = by_destination(container_mounts(pod, config(image), {0: Path("/on/the/node")}))
    assert mounts["/a"]["source"] == "/on/the/node"
    assert set(mounts["/a"]["options"]) == {"rbind", "rprivate", "ro", "nodev", "nosuid"}


@pytest.mark.parametrize(
    ("requested", "expected"), [([], ""), ([0], ""), ([0, 1], "rslave"), ([1, 2], "rshared")]
)
def test_rootfs_propagation_is_the_widest_requested(requested: list[int], expected: str) -> None:
    assert rootfs_propagation(config(*({"propagation": mode} for mode in requested))) == expected


def test_mount_peers_are_those_of_the_nearest_mount(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n"
        "2 1 8:2 / /data rw,relatime - ext4 /dev/b rw\n"
        "3 1 8:3 / /with\\040space rw master:4 - ext4 /dev/c rw\n"
    )
    assert mount_peers("/database", table) == ["shared:1"]
    assert mount_peers("/data/x", table) == []
    assert mount_peers("/with space", table) == ["master:4"]
