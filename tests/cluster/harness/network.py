"""The cluster's bridge, and a network namespace with a veth pair per node."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass

from harness.run import run, succeeds

SERVICE_RANGE = "10.225.0.0/16"
API_SERVICE_IP = "10.225.0.1"
POD_RANGE = "10.224.0.0/16"


@dataclass(frozen=True)
class Network:
    """Addresses and names of one cluster; index distinguishes the clusters of one machine."""

    cluster: str
    index: int

    @property
    def bridge(self) -> str:
        """The bridge's name, within the kernel's 15 characters."""
        return f"nr-{self.cluster}"[:15]

    @property
    def host_ip(self) -> str:
        """The address on which the API server and the registry listen."""
        return f"10.223.{self.index}.1"

    def node_ip(self, number: int) -> str:
        """The address of the node with that number (from 1)."""
        return f"10.223.{self.index}.{10 + number}"

    def netns(self, node: str) -> str:
        """The node's named network namespace."""
        return f"nr-{self.cluster}-{node}"

    def up(self) -> None:
        """Create the bridge, unless it exists."""
        if not succeeds("ip", "link", "show", self.bridge):
            run("ip", "link", "add", self.bridge, "type", "bridge")
            run("ip", "address", "add", f"{self.host_ip}/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")

    def down(self) -> None:
        """Remove the bridge."""
        if succeeds("ip", "link", "show", self.bridge):
            run("ip", "link", "delete", self.bridge)

    def add_node(self, node: str, number: int) -> None:
        """Create the node's namespace with eth0 on the bridge, unless it exists."""
        netns = self.netns(node)
        if netns in namespaces():
            return
        run("ip", "netns", "add", netns)
        host_end = self._host_end(number)
        run("ip", "link", "add", host_end, "type", "veth", "peer", "name", "eth0", "netns", netns)
        run("ip", "link", "set", host_end, "master", self.bridge, "up")
        inside = ("ip", "-n", netns)
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", f"{self.node_ip(number)}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "route", "add", "default", "via", self.host_ip)
        run("ip", "netns", "exec", netns, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def route_pods(self, node: str, other_number: int) -> None:
        """Add a route to another node's pods."""
        run("ip", "-n", self.netns(node), "route", "replace", pod_subnet(other_number),
            "via", self.node_ip(other_number))  # fmt: skip

    def renew_node(self, node: str, number: int) -> None:
        """Create the node's network again, without rules and interfaces of pods, as after a reboot."""
        inside = ("ip", "-n", self.netns(node))
        routes = json.loads(run(*inside, "-j", "route", "show", "proto", "boot"))
        # The kernel removes the namespace asynchronously; its link would conflict with the new one.
        run("ip", "link", "delete", self._host_end(number))
        self.remove_node(node)
        self.add_node(node, number)
        for route in routes:
            run(*inside, "route", "replace", route["dst"], "via", route["gateway"])

    def remove_node(self, node: str) -> None:
        """Remove the node's namespace, and with it its veth pair."""
        netns = self.netns(node)
        if netns in namespaces():
            run("ip", "netns", "delete", netns)

    def _host_end(self, number: int) -> str:
        """Return the name of the machine's end of a node's link."""
        return f"nr{self.index}n{number}"


def pod_subnet(number: int) -> str:
    """Return the pod subnet of the node with that number."""
    return f"10.224.{number}.0/24"


def namespaces() -> set[str]:
    """Return the names of all named network namespaces."""
    listed = json.loads(run("ip", "-j", "netns", "list") or "[]")
    return {entry["name"] for entry in listed}


def free_index() -> int:
    """Return an index whose addresses no interface of this machine uses."""
    addresses = [
        ipaddress.ip_address(info["local"])
        for link in json.loads(run("ip", "-j", "-4", "address"))
        for info in link["addr_info"]
    ]
    for index in range(256):
        subnet = ipaddress.ip_network(f"10.223.{index}.0/24")
        if not any(address in subnet for address in addresses):
            return index
    raise RuntimeError("all subnets of 10.223.0.0/16 are in use on this machine")
