"""The daemon serves after a reboot while the network plugin hangs."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from realnode.daemon import Alone, Daemon
from realnode.pods import Kubelet, wait_until
from realnode.traces import netns_of, remove_cgroups, traces

from noderuntime.cri.v1 import api_pb2

PODS = 200
PLUGIN = """#!/bin/sh
cat > /dev/null
case $CNI_COMMAND in
ADD) echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.9.9/24"}]}' ;;
DEL) while [ -e "$0.hangs" ]; do sleep 0.2; done ;;
esac
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A CNI plugin whose DEL hangs while there is a file beside it with the suffix ``.hangs``."""
    (tmp_path / "cni").mkdir()
    program = tmp_path / "cni/hanging"
    program.write_text(PLUGIN)
    program.chmod(0o755)
    conflist = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": program.name}]}
    (tmp_path / "cni/10-n.conflist").write_text(json.dumps(conflist))
    return program


@pytest.fixture
def daemon(plugin: Path, tmp_path: Path) -> Iterator[Daemon]:
    run = Path(tempfile.mkdtemp(prefix="nrst-", dir="/run"))
    served = Daemon(run, tmp_path / "daemon", Alone(plugin.parent, tmp_path / "certs.d"))
    drop_in = served.config.parent / "conf.d/50-network.toml"
    drop_in.parent.mkdir()
    drop_in.write_text(f"[network]\nplugin_dirs = ['{plugin.parent}']\n")
    served.start()
    try:
        yield served
    finally:
        plugin.with_name("hanging.hangs").unlink(missing_ok=True)
        served.remove()


def lose_pins(daemon: Daemon, pods: set[str]) -> None:
    """Unmount the pods' namespaces, as a reboot does."""
    for pod in pods:
        directory = daemon.run / "sandboxes" / pod
        mounted = [netns_of(pod), directory / "uts", directory / "ipc", directory / "shm"]
        subprocess.run(["umount", *mounted], check=True)


def test_daemon_serves_though_no_cni_del_ends(daemon: Daemon, plugin: Path, tmp_path: Path) -> None:
    kubelet = Kubelet(daemon.socket, tmp_path, f"/noderuntime-start-{uuid.uuid4().hex[:8]}")
    with ThreadPoolExecutor(8) as callers:
        pods = set(callers.map(lambda _: kubelet.run(kubelet.pod_config(), "runc"), range(PODS)))
    daemon.kill()
    lose_pins(daemon, pods)
    hangs = plugin.with_name("hanging.hangs")
    hangs.touch()
    began = time.monotonic()
    daemon.start()
    assert time.monotonic() - began < 3, daemon.log.read_text()[-4000:]
    wait_until(kubelet.answers, "the channel is connected again")
    assert kubelet.pods() == pods
    assert {kubelet.pod_state(pod) for pod in pods} == {api_pb2.SANDBOX_NOTREADY}
    new = kubelet.run(kubelet.pod_config(), "runc")
    assert kubelet.pod_state(new) == api_pb2.SANDBOX_READY
    stop = api_pb2.StopPodSandboxRequest(pod_sandbox_id=next(iter(pods)))
    with pytest.raises(grpc.RpcError) as late:
        kubelet.runtime.StopPodSandbox(stop, timeout=1)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    hangs.unlink()
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(kubelet.stop_and_remove, [*pods, new]))
    assert traces(daemon.run, kubelet.parent, daemon=daemon.pid) == []
    kubelet.channel.close()
    remove_cgroups(kubelet.parent)
