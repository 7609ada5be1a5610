"""The node that critest runs against; all its registries are mirrored to the local one.

``bare`` is containerd only, ``delegate`` the daemon in front of it, ``alone`` the daemon only.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal

from realnode.containerd import Containerd
from realnode.daemon import Alone, Daemon

Setting = Literal["bare", "delegate", "alone"]

_BRIDGE = "nrcritest"
_SUBNET = "10.213.0.0/24"
_SANDBOX_IMAGE = "registry.k8s.io/pause:3.10"


class Node:
    """A node that runs while the context is entered, and leaves nothing."""

    def __init__(self, directory: Path, registry: str, setting: Setting) -> None:
        self._directory = directory
        self._registry = registry
        self._setting = setting
        self._stack = ExitStack()
        self.socket = Path()

    def __enter__(self) -> Node:
        with ExitStack() as stack:
            run = Path(tempfile.mkdtemp(prefix="nrcritest-", dir="/run"))
            stack.callback(shutil.rmtree, run)
            for path in (self._directory, run):
                path.chmod(0o711)  # root of a user namespace must be able to traverse it
            stack.callback(_remove_bridge)
            cni_conf = self._cni()
            if self._setting == "alone":
                certs = self._mirror(self._directory / "certs.d")
                self.socket = self._daemon(stack, run, Alone(cni_conf, certs))
            else:
                containerd = self._containerd(stack, run, cni_conf)
                self.socket = containerd.socket
                if self._setting == "delegate":
                    self.socket = self._daemon(stack, run, containerd)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _containerd(self, stack: ExitStack, run: Path, cni_conf: Path) -> Containerd:
        containerd = Containerd(self._directory / "containerd", run / "c", cni_conf, _SANDBOX_IMAGE)
        self._mirror(self._directory / "containerd" / "certs.d")
        containerd.start()
        stack.callback(containerd.remove)
        containerd.import_images()
        return containerd

    def _daemon(self, stack: ExitStack, run: Path, beside: Containerd | Alone) -> Path:
        daemon = Daemon(run / "n", self._directory / "noderuntime", beside)
        daemon.start()
        stack.callback(daemon.remove)
        return daemon.socket

    def _mirror(self, certs: Path) -> Path:
        (certs / "_default").mkdir(parents=True)
        host = f'[host."http://{self._registry}"]\n  capabilities = ["pull", "resolve"]\n'
        (certs / "_default" / "hosts.toml").write_text(host)
        return certs

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
