"""The daemon is killed at many moments of a pod's start and end; its successor leaves nothing of the pod."""

from __future__ import annotations

import contextlib
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from realnode.containerd import Containerd
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.tools import tool
from realnode.traces import remove_cgroups, traces

HANDLERS = ["runc", "gvisor"]
MOMENTS = [0.005 * 1.9**step for step in range(9)]
"""Seconds after the first call: close together at first, 0.8 s at the end."""


@pytest.fixture
def kubelet(daemon: Daemon, tmp_path: Path) -> Iterator[Kubelet]:
    """A kubelet whose pods have a cgroup of this test's own."""
    client = Kubelet(daemon.socket, tmp_path, f"/noderuntime-death-{uuid.uuid4().hex[:8]}")
    yield client
    client.channel.close()
    remove_cgroups(client.parent)


def whole_life(kubelet: Kubelet, handler: str) -> None:
    """Start a pod and end it, as far as there is a daemon to do it."""
    with contextlib.suppress(grpc.RpcError):
        config = kubelet.pod_config()
        pod = kubelet.run(config, handler)
        kubelet.run_container(pod, config, "main", "exec sleep 1000")
        kubelet.stop_and_remove(pod)


def answers(kubelet: Kubelet) -> bool:
    try:
        kubelet.pods()
    except grpc.RpcError:
        return False
    return True


def snapshots(containerd: Containerd) -> list[str]:
    argv = [tool("ctr"), "-a", containerd.socket, "-n", "k8s.io", "snapshots", "ls"]
    listed = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
    return [line for line in listed.splitlines() if line.startswith("noderuntime-")]


def addresses(cni_conf: Path) -> list[str]:
    """List what host-local has given away."""
    return [path.name for path in (cni_conf / "ipam").glob("*/[0-9]*")]


@pytest.mark.parametrize("handler", HANDLERS)
def test_whatever_the_moment(
    kubelet: Kubelet, daemon: Daemon, containerd: Containerd, cni_conf: Path, handler: str
) -> None:
    for moment in MOMENTS:
        with ThreadPoolExecutor(1) as caller:
            life = caller.submit(whole_life, kubelet, handler)
            time.sleep(moment)
            daemon.kill()
            life.result(timeout=60)
        daemon.start()
        wait_until(lambda: answers(kubelet), "the channel is connected again")
        for pod in kubelet.pods():
            kubelet.stop_and_remove(pod)
        left = [*traces(daemon.run, kubelet.parent, daemon=daemon.pid), *snapshots(containerd)]
        assert left + addresses(cni_conf) == [], f"killed after {moment * 1000:.0f} ms"
