"""The volumes that an image declares: writable, filled from the image, and gone with the container."""

from __future__ import annotations

from pathlib import Path

import pytest
from realnode.containerd import Containerd
from realnode.daemon import Daemon
from realnode.pods import Kubelet
from realnode.scripts import linux, said_by

from noderuntime.cri.v1 import api_pb2

HANDLERS = ["runc", "crun", "gvisor"]
IMAGE = "noderuntime.test/volumes:1"


@pytest.fixture(scope="module")
def image(containerd: Containerd) -> api_pb2.ImageSpec:
    """An image with volumes at a directory with files, at one of mode 1777, and at one that it lacks."""
    containerd.import_image(IMAGE, ["sh"], volumes=["/etc", "/tmp", "/made/for/it"])
    return api_pb2.ImageSpec(image=IMAGE)


@pytest.mark.parametrize("handler", HANDLERS)
def test_volumes_are_filled_from_the_image_and_writable(
    kubelet: Kubelet, daemon: Daemon, image: api_pb2.ImageSpec, handler: str
) -> None:
    script = """
        busybox head -n1 /etc/passwd; busybox stat -c '%a %u %F' /tmp /made/for/it /etc
        for one in /etc /tmp /made/for/it; do echo $one >$one/file && cat $one/file; done
        (echo x >/file) 2>/dev/null || echo refused
    """
    output = said_by(kubelet, handler, script, image=image, linux=linux(readonly_rootfs=True))
    assert output == [
        "root:x:0:0:root:/root:/bin/sh",
        *("1777 0 directory", "755 0 directory", "755 0 directory"),
        *("/etc", "/tmp", "/made/for/it"),
        "refused",
    ]
    volumes = daemon.ledger.parent / "volumes"
    assert len(list(volumes.iterdir())) == 1
    for pod in kubelet.pods():
        kubelet.stop_and_remove(pod)
    assert list(volumes.iterdir()) == []


def test_volumes_are_not_on_overlayfs(kubelet: Kubelet, image: api_pb2.ImageSpec) -> None:
    """An overlay below a volume, as container engines in containers make, is impossible on overlayfs."""
    output = said_by(kubelet, "runc", "cat /proc/mounts", image=image)
    kinds = {point: kind for _, point, kind, *_ in (line.split() for line in output)}
    assert kinds["/"] == "overlay"
    assert kinds["/made/for/it"] not in ("overlay", "tmpfs")


@pytest.mark.parametrize("handler", HANDLERS)
def test_requested_mount_replaces_the_images_volume(
    kubelet: Kubelet, image: api_pb2.ImageSpec, handler: str, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text("of the pod\n")
    mounts = [api_pb2.Mount(container_path="/made/for/it", host_path=str(tmp_path))]
    assert said_by(kubelet, handler, "cat /made/for/it/own", image=image, mounts=mounts) == ["of the pod"]
