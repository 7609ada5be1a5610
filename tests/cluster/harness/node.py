"""A node: a systemd container of runc, in its own network namespace.

It has all capabilities of this machine, a cgroup namespace with its own cgroup
mounts (so that several nodes do not share a tree), and real directories, not
overlays, for the data of its runtime and the kubelet.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import ocispec
from harness.controlplane import ControlPlane
from harness.network import Network, pod_subnet
from harness.nodefiles import EndpointStyle, NodeDescription, node_files, node_units
from harness.paths import RUN, tool
from harness.processes import start_time
from harness.rootfs import base
from harness.run import CommandError, run, succeeds, wait_for
from harness.runtimes import RUNTIMES, VERSIONS, RuntimeKind


@dataclass(frozen=True)
class Node:
    """One node whose state is in a directory."""

    name: str
    number: int
    network: Network
    directory: Path
    runtime: RuntimeKind = "Containerd"

    @property
    def ip(self) -> str:
        """The node's address on the cluster's bridge."""
        return self.network.node_ip(self.number)

    @property
    def root(self) -> Path:
        """The path of the root filesystem on the machine (without mounts made inside)."""
        return self.directory / "root"

    @property
    def cgroup(self) -> str:
        """The node's cgroup in all hierarchies of the machine."""
        return f"/noderuntime/{self.network.cluster}/{self.name}"

    def create(
        self, control: ControlPlane, registry: str, style: EndpointStyle, bundle: Path | None = None
    ) -> None:
        """Write the node's files, unless they exist.

        bundle is a directory that image/export.py wrote; the node mounts it read-only.
        """
        if (self.directory / "config.json").exists():
            return
        for name in ("upper", "work", "root", *self._data):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self._mount_root()
        description = NodeDescription(
            name=self.name, ip=self.ip, pod_subnet=pod_subnet(self.number), registry=registry,
            runtime=self.runtime, style=style,
            kubelet_kubeconfig=control.client_config(self.name, f"system:node:{self.name}", "system:nodes"),
            proxy_kubeconfig=control.client_config("kube-proxy", "system:kube-proxy"),
            client_ca=control.authority.pair.cert.read_text(),
        )  # fmt: skip
        self._write_files(node_files(description))
        binds = [ocispec.Bind(self.directory / name, f"/var/lib/{name}") for name in self._data]
        if bundle is not None:
            binds.append(ocispec.Bind(bundle / VERSIONS.name, str(VERSIONS), "ro"))
            self._link_current(bundle)
        spec = ocispec.node_spec(self.name, self.root, binds, self.network.netns(self.name), self.cgroup)
        (self.directory / "config.json").write_text(json.dumps(spec, indent=1))

    def start(self) -> None:
        """Boot the node, unless it is running."""
        if self.is_running():
            return
        self._mount_root()
        self.network.add_node(self.name, self.number)
        self._runc("delete", "--force", self._id)
        with (self.directory / "console.log").open("ab") as console:
            ocispec.run_detached([*self._runc_argv, "run", "--detach", "--bundle", str(self.directory),
                                  "--pid-file", str(self.directory / "pid"), self._id], console)  # fmt: skip
        wait_for(f"systemd of {self.name}", self._has_booted, timeout=60)

    def stop(self, signal_number: int = signal.SIGRTMIN + 4) -> None:
        """Shut the node down as systemd does on a power button (or kill it with SIGKILL) and clean up."""
        pid = self.pid()
        if pid is not None:
            started = start_time(pid)
            self._runc("kill", self._id, str(int(signal_number)))
            with contextlib.suppress(TimeoutError):
                wait_for(f"end of {self.name}", lambda: start_time(pid) != started, timeout=40)
        self._runc("delete", "--force", self._id)
        ocispec.remove_cgroups(self.cgroup)

    def reboot(self, hard: bool = False) -> None:
        """Restart the node, orderly or as after a power cut; return when systemd is up again."""
        self.stop(signal.SIGKILL if hard else signal.SIGRTMIN + 4)
        self.network.renew_node(self.name, self.number)
        self.start()

    def remove(self) -> None:
        """Remove the node and everything that it left."""
        self.stop(signal.SIGKILL)
        self.network.remove_node(self.name)
        while succeeds("mountpoint", "-q", str(self.root)):
            run("umount", str(self.root))
        shutil.rmtree(self.directory, ignore_errors=True)

    def pid(self) -> int | None:
        """The PID of the node's systemd on the machine, or None if it is not running."""
        try:
            state = json.loads(run(*self._runc_argv, "state", self._id))
        except CommandError:
            return None
        return int(state["pid"]) if state["status"] == "running" else None

    def is_running(self) -> bool:
        """Return whether the node is running."""
        return self.pid() is not None

    def exec(self, *argv: str, timeout: float = 60, stdin: str | None = None) -> str:
        """Run a command in the node and return its output; raise CommandError with its errors."""
        return run(*self._runc_argv, "exec", self._id, *argv, timeout=timeout, stdin=stdin)

    def shell(self) -> int:
        """Run a shell of the node on this terminal; return its exit status."""
        return subprocess.run([*self._runc_argv, "exec", "--tty", self._id, "bash"], check=False).returncode

    def systemctl(self, *argv: str, timeout: float = 90) -> str:
        """Run systemctl in the node."""
        return self.exec("systemctl", "--no-pager", *argv, timeout=timeout)

    def journal(self, unit: str, lines: int = 200) -> str:
        """Return a unit's last log lines."""
        return self.exec("journalctl", "--no-pager", "-o", "short-precise", "-n", str(lines), "-u", unit)

    @property
    def _data(self) -> tuple[str, ...]:
        return (RUNTIMES[self.runtime].data, "kubelet")

    @property
    def _id(self) -> str:
        return self.name

    @property
    def _runc_argv(self) -> list[str]:
        return [tool("runc"), "--root", str(RUN / self.network.cluster / "runc")]

    def _runc(self, *argv: str) -> None:
        """Run runc on a container that may not exist."""
        with contextlib.suppress(CommandError):
            run(*self._runc_argv, *argv)

    def _mount_root(self) -> None:
        if succeeds("mountpoint", "-q", str(self.root)):
            return
        layers = f"lowerdir={base()},upperdir={self.directory / 'upper'},workdir={self.directory / 'work'}"
        run("mount", "-t", "overlay", "-o", layers, f"nr-{self.network.cluster}", str(self.root))

    def _write_files(self, files: dict[str, str]) -> None:
        for path, content in files.items():
            kept_apart = path.startswith("var/lib/kubelet/")
            where = self.directory / path.removeprefix("var/lib/") if kept_apart else self.root / path
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_text(content)
        wants = self.root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        for unit in node_units(self.runtime):
            (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")

    def _link_current(self, bundle: Path) -> None:
        """Link `current` to the bundle's only version, as an installation does."""
        (version,) = (bundle / VERSIONS.name).iterdir()
        current = self.root / "opt/noderuntime/current"
        current.parent.mkdir(parents=True)
        current.symlink_to(f"{VERSIONS.name}/{version.name}")

    def _has_booted(self) -> bool:
        return self.exec("systemctl", "is-active", RUNTIMES[self.runtime].service).strip() == "active"
