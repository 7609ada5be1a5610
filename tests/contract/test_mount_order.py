"""Volumes at directories that contain files of the pod: /etc, /dev and /sys."""

from __future__ import annotations

from pathlib import Path

import pytest
from realnode.pods import Kubelet
from realnode.scripts import said_by

from noderuntime.cri.v1 import api_pb2

HANDLERS = ["runc", "crun", "gvisor"]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "own").write_text("of the volume\n")
    return directory


@pytest.mark.parametrize("handler", HANDLERS)
def test_pod_files_lie_on_a_volume_at_etc(kubelet: Kubelet, handler: str, etc: Path) -> None:
    mounts = [api_pb2.Mount(container_path="/etc", host_path=str(etc))]
    output = said_by(
        kubelet, handler, "cat /etc/own /etc/hostname; grep name /etc/resolv.conf", mounts=mounts
    )
    assert output == ["of the volume", "life", "nameserver 192.0.2.53"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_requested_file_wins_over_the_pods(kubelet: Kubelet, handler: str, etc: Path) -> None:
    mounts = [
        api_pb2.Mount(container_path="/etc/hostname", host_path=str(etc / "own")),
        api_pb2.Mount(container_path="/etc", host_path=str(etc)),
    ]
    assert said_by(kubelet, handler, "cat /etc/hostname", mounts=mounts) == ["of the volume"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_pods_shm_lies_on_the_nodes_dev(kubelet: Kubelet, handler: str, tmp_path: Path) -> None:
    mounts = [api_pb2.Mount(container_path="/dev", host_path="/dev")]
    name = f"noderuntime-{tmp_path.name}"
    output = said_by(kubelet, handler, f"echo x >/dev/shm/{name} && cat /dev/shm/{name}", mounts=mounts)
    assert output == ["x"]
    assert not (Path("/dev/shm") / name).exists()


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_nodes_sys_can_be_mounted(kubelet: Kubelet, handler: str) -> None:
    mounts = [api_pb2.Mount(container_path="/sys", host_path="/sys", readonly=True)]
    output = said_by(kubelet, handler, "ls /sys/class/net /sys/fs/cgroup", mounts=mounts)
    assert any(name.startswith("nrct") for name in output)
