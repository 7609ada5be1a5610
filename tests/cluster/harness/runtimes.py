"""The CRI runtime that a node boots with: stock containerd, or noderuntime as the only one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.paths import REPO
from noderuntime.agent import layout, units

RuntimeKind = Literal["Containerd", "Noderuntime"]

VERSIONS = layout.Layout().versions
"""The bundles' directory in a node, the only part of noderuntime that is mounted instead of installed."""


@dataclass(frozen=True)
class Runtime:
    """The properties of a runtime that the rest of a node needs."""

    service: str
    endpoint: str
    data: str
    """Its directory in /var/lib, which must be on a disk filesystem."""


RUNTIMES: dict[RuntimeKind, Runtime] = {
    "Containerd": Runtime("containerd.service", "unix:///run/containerd/containerd.sock", "containerd"),
    "Noderuntime": Runtime(layout.SERVICE, layout.ENDPOINT, "noderuntime"),
}


def runtime_files(kind: RuntimeKind, registry: str) -> dict[str, str]:
    """Return the runtime's unit and configuration by path, relative to the node's root.

    The images of all registries are pulled from ``registry``, by their path without their host.
    """
    hosts = f'[host."http://{registry}"]\n  capabilities = ["pull", "resolve"]\n'
    if kind == "Containerd":
        return {
            "etc/systemd/system/containerd.service": _CONTAINERD_UNIT,
            "etc/containerd/config.toml": _CONTAINERD_CONFIG.replace("@REGISTRY@", registry),
            "etc/containerd/certs.d/_default/hosts.toml": hosts,
        }
    unit = units.render("by-hand")[layout.SERVICE]
    return {
        f"etc/systemd/system/{layout.SERVICE}": unit,
        "etc/noderuntime/config.toml": (REPO / "examples/standalone.toml").read_text(),
        "etc/noderuntime/conf.d/10-node.toml": _NODERUNTIME_DROP_IN,
        "etc/noderuntime/certs.d/_default/hosts.toml": hosts,
    }


_CONTAINERD_UNIT = """\
[Unit]
Description=containerd
After=network.target shared-mounts.service

[Service]
ExecStart=/usr/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=1
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""

_CONTAINERD_CONFIG = """\
version = 3

[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '@REGISTRY@/pause:3.10'
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = '/etc/containerd/certs.d'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['/opt/cni/bin']
    conf_dir = '/etc/cni/net.d'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
"""

# The kubelet's driver; from the node's systemd noderuntime would derive the other one.
_NODERUNTIME_DROP_IN = '[server]\ncgroup_driver = "cgroupfs"\n'
