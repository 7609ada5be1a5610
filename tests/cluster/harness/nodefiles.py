"""The files of a node, as a pure function of its description."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from harness.network import POD_RANGE
from harness.runtimes import RUNTIMES, RuntimeKind, runtime_files

EndpointStyle = Literal["FlagsFile", "ConfigFile", "DropIn"]

KUBELET_CONFIG = "var/lib/kubelet/config.yaml"
FLAGS_FILE = "var/lib/kubelet/kubeadm-flags.env"
DROP_IN = "etc/kubernetes/kubelet.conf.d/10-runtime.conf"


@dataclass(frozen=True)
class NodeDescription:
    """The settings of one node."""

    name: str
    ip: str
    pod_subnet: str
    registry: str
    runtime: RuntimeKind
    style: EndpointStyle
    kubelet_kubeconfig: str
    proxy_kubeconfig: str
    client_ca: str


def node_files(node: NodeDescription) -> dict[str, str]:
    """Return contents by path, relative to the node's root."""
    files = {
        "etc/hostname": f"{node.name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n{node.ip} {node.name}\n",
        "etc/resolv.conf": f"nameserver {node.registry.partition(':')[0]}\n",
        "etc/systemd/system.conf.d/stop.conf": _SYSTEMD_CONFIG,
        "etc/systemd/system/shared-mounts.service": _SHARED_MOUNTS,
        "etc/systemd/system/kubelet.service": _kubelet_unit(node),
        "etc/systemd/system/kube-proxy.service": _PROXY_UNIT,
        "etc/cni/net.d/10-bridge.conflist": _json(_cni(node)),
        "etc/kubernetes/kubelet.conf": node.kubelet_kubeconfig,
        "etc/kubernetes/kube-proxy.conf": node.proxy_kubeconfig,
        "etc/kubernetes/kube-proxy.yaml": _json(_proxy(node)),
        "etc/kubernetes/pki/ca.crt": node.client_ca,
    }
    return files | runtime_files(node.runtime, node.registry) | _kubelet_files(node)


def _kubelet_files(node: NodeDescription) -> dict[str, str]:
    """Return the kubelet's configuration, with its CRI endpoint where the style requires it."""
    config, endpoint = _kubelet_config(), RUNTIMES[node.runtime].endpoint
    flags = f"--node-ip={node.ip} --hostname-override={node.name}"
    files: dict[str, str] = {}
    if node.style == "FlagsFile":
        flags = f"--container-runtime-endpoint={endpoint} {flags}"
    elif node.style == "ConfigFile":
        config["containerRuntimeEndpoint"] = endpoint
    else:
        head = {key: config[key] for key in ("apiVersion", "kind")}
        files[DROP_IN] = _json(head | {"containerRuntimeEndpoint": endpoint})
    files[FLAGS_FILE] = f'KUBELET_KUBEADM_ARGS="{flags}"\n'
    files[KUBELET_CONFIG] = _json(config)
    return files


def _kubelet_config() -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "resolvConf": "/etc/resolv.conf",
        # The node shares the machine's disk: a full disk must not evict its pods.
        "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
        "nodeStatusReportFrequency": "30s",
    }


def _kubelet_unit(node: NodeDescription) -> str:
    """Return kubeadm's unit and drop-in as one file."""
    directory = " --config-dir=/etc/kubernetes/kubelet.conf.d" if node.style == "DropIn" else ""
    runtime = RUNTIMES[node.runtime].service
    return f"""\
[Unit]
Description=kubelet
Wants=network-online.target {runtime}
After=network-online.target {runtime} shared-mounts.service

[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/{KUBELET_CONFIG}{directory}"
EnvironmentFile=-/{FLAGS_FILE}
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
Restart=always
StartLimitInterval=0
RestartSec=2

[Install]
WantedBy=multi-user.target
"""


_SHARED_MOUNTS = """\
[Unit]
Description=Mounts propagate to pods, as on a machine of its own
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount --make-rshared /

[Install]
WantedBy=sysinit.target
"""

_PROXY_UNIT = """\
[Unit]
Description=kube-proxy
After=network-online.target

[Service]
ExecStart=/usr/bin/kube-proxy --config=/etc/kubernetes/kube-proxy.yaml
Restart=always
RestartSec=2

[Install]
WantedBy=multi-user.target
"""

# The time that an orderly shutdown waits for a process that ignores SIGTERM.
_SYSTEMD_CONFIG = "[Manager]\nDefaultTimeoutStopSec=5s\n"


def node_units(runtime: RuntimeKind) -> tuple[str, ...]:
    """Return the units that a node starts at boot."""
    return ("shared-mounts.service", RUNTIMES[runtime].service, "kubelet.service", "kube-proxy.service")


def _cni(node: NodeDescription) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": node.pod_subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {
        "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
        "ipam": ipam,
    }  # fmt: skip
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "bridge", "plugins": [bridge, portmap]}


def _proxy(node: NodeDescription) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": "/etc/kubernetes/kube-proxy.conf"},
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": node.name,
        # Without br_netfilter the reply of a pod on the same bridge would not pass the NAT again.
        "iptables": {"masqueradeAll": True},
        # These sysctls belong to the machine, not to the node.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"
