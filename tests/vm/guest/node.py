"""The machine as a node: the daemon as systemd's service, and a kubelet with systemd's cgroup driver."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from realnode.pods import Kubelet, wait_until
from realnode.traces import traces

from noderuntime.agent import layout
from noderuntime.cri.v1 import api_pb2

UNIT = layout.SERVICE
PARENT = "/kubepods.slice/kubepods-burstable.slice"
CGROUPS = Path("/sys/fs/cgroup")


class Service:
    """noderuntime.service."""

    run = Path("/run/noderuntime")
    socket = run / "noderuntime.sock"

    @property
    def pid(self) -> int:
        """The PID of the daemon."""
        return int(systemctl("show", "--property=MainPID", "--value", UNIT))

    def kill(self) -> None:
        """Kill the daemon and wait until systemd has noticed; systemd restarts it after a second."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.pid != pid, "systemd has noticed the end of the daemon")

    def stop(self) -> None:
        """Stop the service."""
        systemctl("stop", UNIT)

    def start(self) -> None:
        """Start the service, unless systemd has restarted it; return when the daemon is ready."""
        systemctl("start", UNIT)


class SystemdKubelet(Kubelet):
    """Creates a slice for every pod through systemd, as the kubelet does with the systemd driver."""

    def __init__(self, socket: Path, logs: Path) -> None:
        super().__init__(socket, logs, PARENT)
        self.slices: list[str] = []

    def pod_config(self, **fields: object) -> api_pb2.PodSandboxConfig:
        """Return the config of a new pod and create its slice."""
        config = super().pod_config(**fields)
        name = f"kubepods-burstable-pod{config.metadata.uid.replace('-', '_')}.slice"
        systemctl("start", name)
        self.slices.append(name)
        config.linux.cgroup_parent = f"{PARENT}/{name}"
        return config

    def end(self, daemon: Service) -> list[str]:
        """Remove all pods and their slices; return what is left of them."""
        for pod in self.pods():
            self.stop_and_remove(pod)
        self.channel.close()
        left = [*traces(daemon.run, PARENT, daemon=daemon.pid), *_units()]
        for name in self.slices:
            systemctl("stop", name)
        left += [str(path) for path in (CGROUPS / PARENT[1:]).glob("*.slice")]
        return left + [str(path) for path in CGROUPS.glob("noderuntime.slice/*/")]


def _units() -> list[str]:
    """Return the pods' scopes and slices in systemd, running or failed."""
    listed = systemctl("list-units", "--all", "--plain", "--no-legend", "noderuntime*", "*.scope")
    names = [line.split()[0] for line in listed.splitlines()]
    return [name for name in names if name not in {UNIT, layout.SLICE, "init.scope"}]


def systemctl(*arguments: str) -> str:
    """Run systemctl and return its output."""
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
