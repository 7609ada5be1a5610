"""What a pod requests of its network, as CNI's capability arguments and CNI_ARGS.

The names are those of CNI's CONVENTIONS.md. Containerd and CRI-O send the same ones, so that a plugin sees no
difference.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2

_PROTOCOLS = {api_pb2.TCP: "tcp", api_pb2.UDP: "udp", api_pb2.SCTP: "sctp"}
_RATE_NAMES = {
    "kubernetes.io/ingress-bandwidth": "ingress",
    "kubernetes.io/egress-bandwidth": "egress",
}
_LAST_PORT = 65535
_BURST = (1 << 32) - 1
_RATE_MIN, _RATE_MAX = 1_000, 10**15

_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)([a-zA-Z]{0,2}|[eE]\d{1,2})")
_SUFFIX = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    f"{letter}i": float(1 << 10 * power) for power, letter in enumerate("KMGTPE", 1)
}


def capability_args(config: api_pb2.PodSandboxConfig) -> dict[str, Any]:
    """Return the arguments by capability, for plugins that declare it.

    InvalidArgument for port mappings and rates that cannot work.
    """
    args: dict[str, Any] = {
        "portMappings": _port_mappings(config),
        "bandwidth": _bandwidth(config),
        "dns": _dns(config),
        "io.kubernetes.cri.pod-annotations": dict(config.annotations),
        "cgroupPath": config.linux.cgroup_parent,
    }
    return {name: value for name, value in args.items() if value}


def cni_args(sandbox_id: str, config: api_pb2.PodSandboxConfig) -> str:
    """Return CNI_ARGS, which identify the pod; InvalidArgument if its metadata do not fit into them."""
    pairs = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": config.metadata.namespace,
        "K8S_POD_NAME": config.metadata.name,
        "K8S_POD_INFRA_CONTAINER_ID": sandbox_id,
        "K8S_POD_UID": config.metadata.uid,
    }
    for key, value in pairs.items():
        if re.search(r"[;=\s\0]", value):
            raise InvalidArgument(
                f"pod sandbox metadata: {key} has whitespace or one of ; = which CNI_ARGS cannot contain"
            )
    return ";".join(f"{key}={value}" for key, value in pairs.items())


def _port_mappings(config: api_pb2.PodSandboxConfig) -> list[dict[str, Any]]:
    mappings = []
    for mapping in config.port_mappings:
        if mapping.host_port <= 0:
            continue
        if mapping.protocol not in _PROTOCOLS:
            raise InvalidArgument(f"port mapping: protocol {mapping.protocol} is unknown")
        if not 1 <= mapping.container_port <= _LAST_PORT or mapping.host_port > _LAST_PORT:
            raise InvalidArgument(
                f"port mapping from {mapping.host_port} to {mapping.container_port}:"
                f" ports must be between 1 and {_LAST_PORT}"
            )
        if mapping.host_ip:
            _check_address(mapping.host_ip)
        entry: dict[str, Any] = {
            "hostPort": mapping.host_port,
            "containerPort": mapping.container_port,
            "protocol": _PROTOCOLS[mapping.protocol],
        }
        mappings.append(entry | ({"hostIP": mapping.host_ip} if mapping.host_ip else {}))
    return mappings


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"port mapping: host IP {text[:60]!r} is not an IP address") from error


def _bandwidth(config: api_pb2.PodSandboxConfig) -> dict[str, int]:
    """Return the pod's limits in bits per second, as the bandwidth plugin expects them."""
    limits: dict[str, int] = {}
    for annotation, direction in _RATE_NAMES.items():
        if annotation in config.annotations:
            limits[f"{direction}Rate"] = _rate(annotation, config.annotations[annotation])
            limits[f"{direction}Burst"] = _BURST
    return limits


def _rate(annotation: str, text: str) -> int:
    match = _QUANTITY.fullmatch(text.strip())
    number, suffix = match.groups() if match else ("", "?")
    factor = 10.0 ** int(suffix[1:]) if re.fullmatch(r"[eE]\d+", suffix) else _SUFFIX.get(suffix)
    rate = round(float(number) * factor) if number and factor else 0
    if not _RATE_MIN <= rate <= _RATE_MAX:
        raise InvalidArgument(
            f"annotation {annotation}: {text[:40]!r} is not a rate between 1k and 1P (example: 10M)"
        )
    return rate


def _dns(config: api_pb2.PodSandboxConfig) -> dict[str, list[str]]:
    dns = config.dns_config
    lists = {"servers": list(dns.servers), "searches": list(dns.searches), "options": list(dns.options)}
    return {name: values for name, values in lists.items() if values}
