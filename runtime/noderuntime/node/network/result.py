"""What a chain of plugins answered: the pod's addresses, and what DEL will need."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

from noderuntime.core.errors import InvalidArgument, ToolError
from noderuntime.node.host.base import Address
from noderuntime.node.network import conflist
from noderuntime.node.network.conflist import NetworkList


@dataclass(frozen=True, slots=True)
class Kept:
    """What lies in the ledger for DEL: the network as it was at ADD, and the last result.

    The node's configuration may have changed since; the pod is taken off the
    network that it was put on.
    """

    network: NetworkList
    result: dict[str, Any] | None

    def to_bytes(self) -> bytes:
        """Serialize as JSON."""
        return json.dumps({"network": self.network.to_json(), "result": self.result}).encode()

    @staticmethod
    def from_bytes(raw: bytes) -> Kept:
        """Read what :meth:`to_bytes` wrote; InvalidArgument when it is something else."""
        try:
            content = json.loads(raw)
            return Kept(conflist.parse(content["network"]), content["result"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgument("the kept CNI result cannot be read") from error


def pod_ips(result: dict[str, Any], interface: str) -> tuple[str, ...]:
    """Collect the addresses of the pod's interface, IPv4 first; ToolError when there is none."""
    found = [address.ip for address in pod_addresses(result, interface)]
    if not found:
        raise ToolError("CNI", "ADD", 0, "the result has no address for the pod")
    return tuple(str(address) for address in sorted(found, key=lambda address: address.version))


def pod_addresses(result: dict[str, Any], interface: str) -> list[Address]:
    """Collect the addresses of the pod's interface with their prefixes, in the order of the result.

    An address that names no interface counts as the pod's (CNI spec 1.1, section 5, Success).
    ToolError when the result cannot be read.
    """
    interfaces = result.get("interfaces") or []
    found: list[Address] = []
    try:
        for entry in result.get("ips") or []:
            index = entry.get("interface")
            if index is None or _is_pods(interfaces[int(index)], interface):
                found.append(_parsed(entry["address"]))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ToolError("CNI", "ADD", 0, f"the result cannot be read: {error}") from error
    return found


def _parsed(address: object) -> Address:
    if not isinstance(address, str):  # a number would be taken for an address, too
        raise TypeError(f"{address!r} is no address")
    return ipaddress.ip_interface(address)


def _is_pods(entry: dict[str, Any], interface: str) -> bool:
    return bool(entry.get("sandbox")) and entry.get("name") == interface
