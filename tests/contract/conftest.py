"""Fixtures of the contract tests: real tools, a private containerd, and our daemon in front of it."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from realnode.containerd import Containerd
from realnode.daemon import Daemon
from realnode.pods import Kubelet
from realnode.traces import remove_cgroups, traces


@pytest.fixture(scope="session")
def cni_conf() -> Iterator[Path]:
    """A CNI configuration directory with a bridge network of this run's own."""
    directory = Path(tempfile.mkdtemp(prefix="noderuntime-cni-"))
    token = secrets.randbelow(200)
    conflist = {
        "cniVersion": "1.0.0",
        "name": f"contract{token}",
        "plugins": [
            {
                "type": "bridge",
                "bridge": f"nrct{token}",
                "isGateway": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(directory / "ipam"),
                    "ranges": [[{"subnet": f"10.{token}.77.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    (directory / "10-contract.conflist").write_text(json.dumps(conflist))
    yield directory
    shutil.rmtree(directory)
    bridge = Path(f"/sys/class/net/nrct{token}")
    if bridge.exists():
        subprocess.run(["ip", "link", "delete", bridge.name], check=True)


@pytest.fixture(scope="session")
def containerd(cni_conf: Path) -> Iterator[Containerd]:
    """A real containerd with the test image, for the whole run."""
    node = Containerd(
        Path(tempfile.mkdtemp(prefix="noderuntime-containerd-")),
        Path(tempfile.mkdtemp(prefix="nrct-", dir="/run")),
        cni_conf,
    )
    try:
        node.start()
        node.import_images()
        yield node
    finally:
        node.remove()


@pytest.fixture(scope="module")
def daemon(containerd: Containerd) -> Iterator[Daemon]:
    """The daemon in front of that containerd, with both handlers; a module's own."""
    served = Daemon(
        Path(tempfile.mkdtemp(prefix="nrct-", dir="/run")),
        Path(tempfile.mkdtemp(prefix="noderuntime-state-")),
        containerd,
        watched=True,
    )
    served.start()
    try:
        yield served
    finally:
        served.remove()


@pytest.fixture
def kubelet(daemon: Daemon, tmp_path: Path) -> Iterator[Kubelet]:
    """Yield a kubelet, and check that its pods left nothing when the test ends."""
    parent = f"/noderuntime-contract-{uuid.uuid4().hex[:8]}"
    client = Kubelet(daemon.socket, tmp_path, parent)
    yield client
    for pod in client.pods():
        client.stop_and_remove(pod)
    client.channel.close()
    left = traces(daemon.run, parent, daemon=daemon.pid)
    remove_cgroups(parent)
    assert left == [], daemon.log.read_text()[-4000:]
    assert daemon.slow_callbacks() == []
