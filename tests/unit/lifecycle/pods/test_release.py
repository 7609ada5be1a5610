"""Removal of the cgroups and the slice of a pod that the kubelet does not manage."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from noderuntime.core.errors import ToolError
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.pods import release
from noderuntime.node.host.base import Completed

ID = "5b" * 32
SLICE = f"/noderuntime.slice/noderuntime-{ID[:12]}.slice"


class Systemd:
    """A host whose systemctl ends as it is reported."""

    def __init__(self, status: int = 0) -> None:
        self.done: list[str] = []
        self._status = status

    async def run(self, argv: Sequence[str], *, timeout: float) -> Completed:
        self.done.append(" ".join(argv))
        return Completed(self._status, b"", b"no bus\n")

    async def remove_cgroup(self, path: str) -> None:
        self.done.append(path)


async def removed(host: Systemd, driver: str, parent: str = "") -> list[str]:
    """Remove a pod's cgroups and return what was done."""
    config = api_pb2.PodSandboxConfig(linux=api_pb2.LinuxPodSandboxConfig(cgroup_parent=parent))
    sandbox = Sandbox(id=ID, handler="runc", config=config, created_at=1)
    await release.remove_cgroups(SimpleNamespace(host=host, cgroup_driver=driver), sandbox)  # type: ignore[arg-type]
    return host.done


@pytest.mark.parametrize("status", [0, 5], ids=["stopped", "not loaded"])
async def test_slice_of_the_pod_is_stopped(status: int) -> None:
    stop = f"systemctl --no-ask-password stop noderuntime-{ID[:12]}.slice"
    assert await removed(Systemd(status), "systemd") == [f"{SLICE}/noderuntime-monitor", stop, SLICE]


async def test_slice_that_cannot_be_stopped_is_an_error() -> None:
    with pytest.raises(ToolError, match="systemctl stop failed with exit status 1: no bus"):
        await removed(Systemd(1), "systemd")


async def test_slice_of_the_kubelet_is_not_stopped() -> None:
    parent = "/kubepods.slice/kubepods-pod1.slice"
    assert await removed(Systemd(), "systemd", parent) == [f"{parent}/noderuntime-monitor"]


async def test_cgroup_is_removed_without_systemd() -> None:
    assert await removed(Systemd(), "cgroupfs") == [
        f"/noderuntime/{ID}/noderuntime-monitor",
        f"/noderuntime/{ID}",
    ]
