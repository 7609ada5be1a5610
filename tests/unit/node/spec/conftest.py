"""Inputs of specs."""

from __future__ import annotations

from pathlib import Path

import pytest

from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.inputs import Pod

ALL_CAPABILITIES = (1 << 41) - 1


@pytest.fixture
def facts() -> HostFacts:
    return HostFacts(
        architecture="x86_64",
        kernel="6.1.0",
        capabilities=ALL_CAPABILITIES,
        oom_score_adj=0,
        cgroup_version=2,
        controllers=frozenset(("cpu", "memory", "hugetlb")),
        swap_accounting=True,
        has_swap_max=False,
        seccomp_profile=None,
    )


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(
        id="5" * 64,
        config=api_pb2.PodSandboxConfig(hostname="web-0"),
        cgroup="/kubepods/pod1",
        driver="cgroupfs",
        namespaces={"network": "/run/netns/n", "ipc": "/run/s/ipc", "uts": "/run/s/uts"},
        shm=tmp_path / "shm",
        resolv_conf=tmp_path / "resolv.conf",
        hostname=tmp_path / "hostname",
    )


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\napp:x:1000:2000::/:/bin/sh\nbad line\nx:y:z:w\n"
    )
    (root / "etc/group").write_text("root:x:0:\nstaff:x:50:app,other\nlogs:x:60:app\nweb:x:2000:\n")
    return root
