"""The sysctls of a sandbox.

when its namespaces are created    defaults of pods with their own network, and requested ones, which win
after CNI ADD                      requested ones of the interface that ADD creates
"""

from __future__ import annotations

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.pod import user_of
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.sysctl_names import is_of_interface
from noderuntime.node.network.base import wants_pod_network

_UNPRIVILEGED_PORTS = {"net.ipv4.ip_unprivileged_port_start": "0"}
_UNPRIVILEGED_ICMP = {"net.ipv4.ping_group_range": "0 2147483647"}
"""All groups that the kernel accepts here."""


def sysctls_of_namespaces(parts: Parts, sandbox: Sandbox) -> dict[str, str]:
    """Return the sysctls to set when the sandbox's namespaces are created."""
    late = sysctls_of_interface(sandbox.config)
    requested = {name: value for name, value in sandbox.config.linux.sysctls.items() if name not in late}
    return _defaults(parts, sandbox) | requested


def sysctls_of_interface(config: api_pb2.PodSandboxConfig) -> dict[str, str]:
    """Return the sysctls to set after CNI ADD, such as ``net.ipv4.conf.eth0.rp_filter``."""
    if not wants_pod_network(config):
        return {}
    return {name: value for name, value in config.linux.sysctls.items() if is_of_interface(name)}


def _defaults(parts: Parts, sandbox: Sandbox) -> dict[str, str]:
    """Return the defaults of a pod with its own network.

    In a user namespace the groups of the ICMP default are not mapped, so the kernel rejects it.
    """
    network = parts.config.network
    defaults: dict[str, str] = {}
    if not wants_pod_network(sandbox.config):
        return defaults
    if network.enable_unprivileged_ports:
        defaults |= _UNPRIVILEGED_PORTS
    if network.enable_unprivileged_icmp and parts.facts.maps_all_groups and not user_of(parts, sandbox):
        defaults |= _UNPRIVILEGED_ICMP
    return defaults
