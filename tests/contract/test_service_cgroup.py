"""The cgroup of the daemon's service, all of whose processes ``systemctl kill noderuntime`` signals."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.scripts import linux

from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.cgroup import ROOT, Cgroups

OF_SYSTEMD = [one for one in Cgroups().hierarchies if one in (ROOT, ROOT / "systemd", ROOT / "unified")]
"""The hierarchies in which systemd finds the processes of services."""


class Service:
    """A cgroup of its own, as systemd gives the daemon one."""

    def __init__(self) -> None:
        name = f"noderuntime-service-{uuid.uuid4().hex[:8]}"
        self._groups = [hierarchy / name for hierarchy in OF_SYSTEMD]
        for group in self._groups:
            group.mkdir()

    def adopt(self, pid: int) -> None:
        """Move a process into the cgroup."""
        for group in self._groups:
            (group / "cgroup.procs").write_text(str(pid))

    def processes(self) -> dict[int, str]:
        """Return the command lines of the processes in the cgroup by PID."""
        found = {}
        for group in self._groups:
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(FileNotFoundError, ProcessLookupError):
                    found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        return found

    def remove(self) -> None:
        """Remove the cgroup."""
        for group in self._groups:
            group.rmdir()


@pytest.fixture
def service(daemon: Daemon) -> Iterator[Service]:
    made = Service()
    made.adopt(daemon.pid)
    yield made
    wait_until(lambda: not made.processes(), "the end of the service's processes")
    made.remove()


@pytest.mark.parametrize("handler", ["runc", "crun", "gvisor"])
def test_killed_service_leaves_pods_running(
    kubelet: Kubelet, daemon: Daemon, service: Service, handler: str
) -> None:
    options = api_pb2.NamespaceOption(pid=api_pb2.POD)
    context = api_pb2.LinuxSandboxSecurityContext(namespace_options=options)
    config = kubelet.pod_config(linux=api_pb2.LinuxPodSandboxConfig(security_context=context))
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(
        pod, config, "main", "exec sleep 1000", linux=linux(namespace_options=options)
    )
    others = {pid: command for pid, command in service.processes().items() if pid != daemon.pid}
    for pid in others:
        os.kill(pid, signal.SIGTERM)
    daemon.stop()
    daemon.start()
    assert others == {}
    assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING
    assert kubelet.exec(container, "echo here").stdout == b"here\n"
