"""The two runtimes: each with its own directories, cgroup and kubelet, on the same network."""

from __future__ import annotations

import compileall
import json
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realnode.containerd import Containerd
from realnode.crun import crun
from realnode.daemon import Alone, Daemon
from realnode.pods import Kubelet
from realnode.tools import tool
from realnode.traces import remove_cgroups

import noderuntime
from bench.figures import SIDES, Side
from bench.machine import Group
from bench.pushing import PAUSE
from bench.shim import shim

_BRIDGE = "nrbench"

_GVISOR = """
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.gvisor]
runtime_type = "io.containerd.runsc.v1"
runtime_path = "{shim}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.gvisor.options]
TypeUrl = "io.containerd.runsc.v1.options"
ConfigPath = "{config}"
"""
_CRUN = """
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]
BinaryName = "{crun}"
SystemdCgroup = false
"""
_OLDER = """#!/bin/sh
for word; do
    [ "$last" = --bundle ] && sed -i 's/"ociVersion":"1[^"]*"/"ociVersion":"1.0.2"/' "$word/config.json"
    last=$word
done
exec {crun} "$@"
"""
_RUNSC = """
binary_name = "{runsc}"
[runsc_config]
platform = "systrap"
network = "sandbox"
overlay2 = "none"
"""


@dataclass
class Place:
    """The directories and the cgroup that both sides of a run use."""

    area: Path
    """On a disk, not a tmpfs."""
    run: Path
    """A short path, for sockets."""
    cni_conf: Path
    cgroup: str = field(default_factory=lambda: f"/noderuntime-bench-{secrets.token_hex(4)}")

    def certs(self, registry: str) -> Path:
        """Return a certs.d directory that makes this registry the mirror of all others."""
        certs = self.area / "certs.d"
        (certs / "_default").mkdir(parents=True)
        host = f'[host."http://{registry}"]\n  capabilities = ["pull", "resolve"]\n'
        (certs / "_default" / "hosts.toml").write_text(host)
        return certs


class Runtime:
    """One running side, in its own cgroup together with its pods."""

    def __init__(self, name: Side, place: Place, certs: Path, number: int = 0) -> None:
        area, run = place.area / f"{name}{number}", place.run / f"{name[0]}{number}"
        self.name = name
        self.group = Group(f"{place.cgroup}/{name}{number}")
        self._logs = area / "logs"
        self.own = Group(f"{self.group.path}/daemon")
        """The daemon and its helpers, without the pods."""
        make = _daemon if name == "noderuntime" else _containerd
        self.server: Daemon | Containerd = make(area, run, place, certs)
        self.kubelet: Kubelet
        self.start()

    def start(self) -> None:
        """Start the daemon, and connect a kubelet to it."""
        self.server.start()
        self.own.join(self.server.pid)
        self.kubelet = Kubelet(self.server.socket, self._logs, f"{self.group.path}/pods")

    def stop(self) -> None:
        """Stop the daemon; its pods stay."""
        self.server.stop()

    def remove(self) -> None:
        """Remove pods, daemon and files."""
        self.server.remove()


@contextmanager
def place() -> Iterator[Place]:
    """Create the directories and the CNI configuration; remove them at the end."""
    compileall.compile_dir(Path(noderuntime.__file__).parent, quiet=1)  # as in an installed daemon
    with ExitStack() as stack:
        area = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="noderuntime-bench-")))
        run = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nrbench-", dir="/run")))
        for path in (area, run):
            path.chmod(0o711)
        made = Place(area, run, area / "cni")
        _write_cni(made)
        stack.callback(_remove_bridge)
        stack.callback(remove_cgroups, made.cgroup)
        yield made


@contextmanager
def both(place: Place, certs: Path) -> Iterator[list[Runtime]]:
    """Start both sides."""
    with ExitStack() as stack:
        runtimes = []
        for name in SIDES:
            runtimes.append(Runtime(name, place, certs))
            stack.callback(runtimes[-1].remove)
        yield runtimes


def _daemon(area: Path, run: Path, place: Place, certs: Path) -> Daemon:
    return Daemon(run, area, Alone(place.cni_conf, certs))


def _containerd(area: Path, run: Path, place: Place, certs: Path) -> Containerd:
    area.mkdir()
    (area / "runsc.toml").write_text(_RUNSC.format(runsc=tool("runsc")))
    (area / "certs.d").symlink_to(certs)
    gvisor = _GVISOR.format(shim=shim(), config=area / "runsc.toml")
    handlers = gvisor + _CRUN.format(crun=_crun_of_1_0(area))
    return Containerd(area, run, place.cni_conf, PAUSE, handlers)


def _crun_of_1_0(area: Path) -> Path:
    """Return a crun wrapper for containerd, whose specs are OCI 1.2: Debian 12's crun accepts only 1.0."""
    wrapper = area / "crun-1.0"
    wrapper.write_text(_OLDER.format(crun=crun(area)))
    wrapper.chmod(0o755)
    return wrapper


def _write_cni(place: Place) -> None:
    ipam: dict[str, Any] = {
        "type": "host-local",
        "dataDir": str(place.area / "ipam"),
        "ranges": [[{"subnet": "10.214.0.0/22"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": _BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": ipam}
    conflist = {"cniVersion": "1.0.0", "name": _BRIDGE, "plugins": [bridge]}
    place.cni_conf.mkdir()
    (place.cni_conf / "10-bench.conflist").write_text(json.dumps(conflist))


def _remove_bridge() -> None:
    if Path(f"/sys/class/net/{_BRIDGE}").exists():
        subprocess.run(["ip", "link", "delete", _BRIDGE], check=True)
