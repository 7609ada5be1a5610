"""The node that critest talks to: containerd whose registries are all mirrored to ours, and the daemon."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from realnode.containerd import Containerd
from realnode.daemon import Daemon

_BRIDGE = "nrcritest"
_SUBNET = "10.213.0.0/24"
_SANDBOX_IMAGE = "registry.k8s.io/pause:3.10"


class Node:
    """Started when entered, gone with everything of it when left."""

    def __init__(self, directory: Path, registry: str, *, daemon: bool) -> None:
        self._directory = directory
        self._registry = registry
        self._daemon = daemon
        self._stack = ExitStack()
        self.socket = Path()

    def __enter__(self) -> Node:
        with ExitStack() as stack:
            run = Path(tempfile.mkdtemp(prefix="nrcritest-", dir="/run"))
            stack.callback(shutil.rmtree, run)
            for path in (self._directory, run):
                path.chmod(0o711)  # root of a user namespace has to pass through
            stack.callback(_remove_bridge)
            containerd = Containerd(self._directory / "containerd", run / "c", self._cni(), _SANDBOX_IMAGE)
            self._mirror(self._directory / "containerd" / "certs.d")
            containerd.start()
            stack.callback(containerd.remove)
            containerd.import_images()
            self.socket = containerd.socket
            if self._daemon:
                daemon = Daemon(run / "n", self._directory / "noderuntime", containerd)
                daemon.start()
                stack.callback(daemon.remove)
                self.socket = daemon.socket
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _mirror(self, certs: Path) -> None:
        (certs / "_default").mkdir(parents=True)
        host = f'[host."http://{self._registry}"]\n  capabilities = ["pull", "resolve"]\n'
        (certs / "_default" / "hosts.toml").write_text(host)

    def _cni(self) -> Path:
        conf = self._directory / "cni"
        conf.mkdir()
        bridge = {
            "type": "bridge",
            "bridge": _BRIDGE,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self._directory / "ipam"),
                "ranges": [[{"subnet": _SUBNET}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        conflist = {"cniVersion": "1.0.0", "name": "critest", "plugins": [bridge, portmap]}
        (conf / "10-critest.conflist").write_text(json.dumps(conflist))
        return conf


def _remove_bridge() -> None:
    if Path(f"/sys/class/net/{_BRIDGE}").exists():
        subprocess.run(["ip", "link", "delete", _BRIDGE], check=True)
