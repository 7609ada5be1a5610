"""One call of one CNI plugin, and what its result means.

Environment and configuration go in; a result, or an error of one line, comes out.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderuntime.core.blocking import apart
from noderuntime.core.errors import DeadlineExceeded, InvalidArgument, NotFound, ToolError
from noderuntime.node.host.base import Address, Completed, Host
from noderuntime.node.network import conflist
from noderuntime.node.network.conflist import NetworkList

DISK_SECONDS = 5.0
"""How long to wait for the directories of plugins and of the configuration: a network filesystem can hang."""

_MESSAGE_LIMIT = 1000
_CODES = {
    11: "try again later",
    50: "the plugin cannot serve ADD",
    51: "the plugin cannot serve ADD, and existing pods may have limited connectivity",
}
"""Error codes of the CNI specification that say what to do, or what to expect."""
_DEFAULT_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Call:
    """Parameters that all plugins of a chain get (CNI spec 1.1, section 2, Parameters)."""

    command: str
    container_id: str = ""
    netns: str = ""
    args: str = ""
    interface: str = ""


class PluginRunner:
    """Runs plugins from the node's plugin directories."""

    def __init__(self, host: Host, plugin_dirs: Sequence[Path]) -> None:
        self._host = host
        self._dirs = tuple(plugin_dirs)

    def find(self, kind: str) -> Path:
        """Return the plugin's path; NotFound names the directories that were searched. Blocks."""
        for directory in self._dirs:
            if os.access(directory / kind, os.X_OK):
                return directory / kind
        raise NotFound(f"CNI plugin {kind} is not in {', '.join(map(str, self._dirs))}")

    async def run(
        self,
        kind: str,
        call: Call,
        config: Mapping[str, Any],
        *,
        timeout: float,
        pass_fds: Sequence[int] = (),
    ) -> dict[str, Any]:
        """Call the plugin and return its result, which only ADD has.

        ToolError has the plugin's own message. A plugin that does not end within the timeout (seconds) is
        killed with its process group: DeadlineExceeded.
        """
        path = await apart(
            lambda: self.find(kind),
            what=f"search for CNI plugin {kind}",
            seconds=DISK_SECONDS,
            subject="CNI plugins",
            abandon=True,
        )
        try:
            done = await self._host.run(
                [str(path)],
                timeout=timeout,
                stdin=json.dumps(config).encode(),
                env=self._environment(call),
                pass_fds=pass_fds,
            )
        except DeadlineExceeded as error:
            raise DeadlineExceeded(f"CNI plugin {kind} {call.command}: {error}") from error
        tool = f"CNI plugin {kind}"
        if done.returncode != 0:
            raise ToolError(tool, call.command, done.returncode, _message(done))
        if call.command != "ADD":
            return {}
        result = _object(done.stdout)
        if result is None:
            raise ToolError(tool, call.command, 0, "its result is not a JSON object")
        return result

    def _environment(self, call: Call) -> dict[str, str]:
        return {
            **os.environ,  # as with other runtimes: plugins read HTTPS_PROXY, KUBECONFIG and the like
            "PATH": os.environ.get("PATH") or _DEFAULT_PATH,
            "CNI_COMMAND": call.command,
            "CNI_CONTAINERID": call.container_id,
            "CNI_NETNS": call.netns,
            "CNI_IFNAME": call.interface,
            "CNI_ARGS": call.args,
            "CNI_PATH": os.pathsep.join(map(str, self._dirs)),
        }


@dataclass(frozen=True, slots=True)
class Kept:
    """What the ledger keeps for DEL: the network as it was at ADD, and the last result if ADD finished.

    The node's configuration can change between ADD and DEL.
    """

    network: NetworkList
    result: dict[str, Any] | None

    def to_bytes(self) -> bytes:
        """Serialize as JSON."""
        return json.dumps({"network": self.network.to_json(), "result": self.result}).encode()

    @staticmethod
    def from_bytes(raw: bytes) -> Kept:
        """Read what :meth:`to_bytes` wrote; InvalidArgument for anything else."""
        try:
            content = json.loads(raw)
            return Kept(conflist.parse(content["network"]), content["result"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgument("the CNI result in the ledger cannot be read") from error


def pod_ips(result: dict[str, Any], interface: str) -> tuple[str, ...]:
    """Return the pod's addresses in the order of the result, but the first IPv4 address first.

    They are those of the pod's interface; if it has none, all addresses of the result. ToolError if there are
    none, or if the result cannot be read.
    """
    found = pod_addresses(result, interface) or [address for _, address in _addresses(result)]
    if not found:
        raise ToolError("CNI", "ADD", 0, "the result has no address for the pod")
    first = next((address for address in found if address.version == 4), found[0])
    return tuple(str(address.ip) for address in (first, *(other for other in found if other is not first)))


def pod_addresses(result: dict[str, Any], interface: str) -> list[Address]:
    """Return the addresses of the pod's interface with their prefixes, in the order of the result.

    An address that names no interface counts as the pod's (CNI spec 1.1, section 5, Success).
    ToolError if the result cannot be read.
    """
    return [address for name, address in _addresses(result) if name in (None, interface)]


def _addresses(result: dict[str, Any]) -> list[tuple[str | None, Address]]:
    """Return the addresses, each with the name of its interface. ToolError if the result cannot be read."""
    interfaces = result.get("interfaces") or []
    found: list[tuple[str | None, Address]] = []
    try:
        for entry in result.get("ips") or []:
            address, index = _parsed(entry["address"]), entry.get("interface")
            if index is not None:
                _check_index(address, index, len(interfaces))
            found.append((None if index is None else interfaces[index].get("name"), address))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError("CNI", "ADD", 0, f"the result cannot be read: {error}") from error
    return found


def _check_index(address: Address, index: object, count: int) -> None:
    """Raise ValueError unless the index of an address's interface is valid."""
    if type(index) is not int or not 0 <= index < count:
        raise ValueError(
            f"address {address} is on interface {str(index)[:20]}, but the result has {count} of them"
        )


def _message(done: Completed) -> str:
    """Return why the plugin failed, as one line: from its error object, else its stderr."""
    error = _object(done.stdout) or {}
    parts = [str(error[key]) for key in ("msg", "details") if error.get(key)]
    message = ": ".join(parts) or (done.stderr or done.stdout).decode(errors="replace")
    message = " ".join(message.split())[:_MESSAGE_LIMIT]
    code = error.get("code")
    return (
        f"{message} (CNI error {code}: {_CODES[code]})"
        if isinstance(code, int) and code in _CODES
        else message
    )


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _parsed(address: object) -> Address:
    if not isinstance(address, str):  # ip_interface takes a number as well
        raise TypeError(f"{address!r} is not an address")
    return ipaddress.ip_interface(address)
