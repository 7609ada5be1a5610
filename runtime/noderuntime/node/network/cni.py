"""The pod network by CNI, with the node's own configuration and plugins.

``lo`` is up before (the namespace code does that), so the loopback plugin is
not called. A chain of one ``bridge`` costs one spawn per ADD and DEL.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noderuntime.core import log
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument, NoderuntimeError, NotFound, Unavailable
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.base import Host
from noderuntime.node.network import conflist
from noderuntime.node.network.base import Attachment
from noderuntime.node.network.capabilities import capability_args, cni_args
from noderuntime.node.network.conflist import NetworkList, Plugin
from noderuntime.node.network.plugin import Call, Kept, PluginRunner, pod_addresses, pod_ips

_log = log.get(__name__)

_Signature = tuple[tuple[str, int, int, int], ...]


class CniNetwork:
    """:class:`noderuntime.node.network.base.Network` over CNI plugins."""

    def __init__(self, host: Host, conf_dir: Path, plugin_dirs: Sequence[Path]) -> None:
        self._host = host
        self._conf_dir = conf_dir
        self._plugins = PluginRunner(host, plugin_dirs)
        self._signature: _Signature | None = None
        self._network: NetworkList | None = None
        self._fault = ""

    async def attach(self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig) -> Attachment:
        """CNI ADD through the chain, each plugin given the result of the one before.

        On failure a DEL of the whole chain has been tried; the error is that of the ADD.
        """
        network = await self._current()
        call = Call("ADD", sandbox_id, netns, cni_args(sandbox_id, config))
        wanted = capability_args(config)
        result: dict[str, Any] | None = None
        try:
            for plugin in network.plugins:
                result = await self._plugins.run(
                    plugin["type"], call, plugin_config(network, plugin, wanted, result)
                )
            ips = pod_ips(result or {}, call.interface)
        except NoderuntimeError:
            await self._undo(sandbox_id, netns, config, Kept(network, result))
            raise
        return Attachment(ips, Kept(network, result).to_bytes())

    async def detach(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, result: bytes
    ) -> None:
        """CNI DEL in reverse order, with the configuration that the ADD had.

        Every plugin is called even when one fails; the first error is raised then.
        Without a kept result the node's present configuration is used, and
        without that there is nothing that could be undone.
        """
        try:
            kept = Kept.from_bytes(result) if result else Kept(await self._current(), None)
        except Unavailable as error:
            _log.warning("no CNI configuration for a DEL", sandbox=sandbox_id, error=error)
            return
        await self._delete(sandbox_id, netns, config, kept)

    async def ready(self) -> tuple[bool, str]:
        """Tell whether a configuration and its plugins are there; the disk is read only on a change."""
        try:
            network = await self._current()
            await FILES.run(lambda: [self._plugins.find(plugin["type"]) for plugin in network.plugins])
        except (Unavailable, NotFound) as error:
            return False, str(error)
        return True, ""

    async def _current(self) -> NetworkList:
        """Return the node's network; Unavailable says what is wrong with its configuration."""
        signature = await FILES.run(_signature, self._conf_dir)
        if signature != self._signature:
            try:
                self._network, self._fault = await FILES.run(conflist.load, self._conf_dir), ""
            except InvalidArgument as error:
                self._network, self._fault = None, str(error)
            self._signature = signature
        if self._network is None:
            raise Unavailable(f"the pod network is not configured: {self._fault}")
        return self._network

    async def _delete(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, kept: Kept
    ) -> None:
        alive = netns if await FILES.run(os.path.exists, netns) else ""
        call = Call("DEL", sandbox_id, alive, cni_args(sandbox_id, config))
        if alive:
            await self._readdress(call, kept.result or {})
        wanted = capability_args(config)
        first: NoderuntimeError | None = None
        for plugin in reversed(kept.network.plugins):
            previous = kept.result if kept.network.at_least("0.4.0") else None
            try:
                given = plugin_config(kept.network, plugin, wanted, previous)
                await self._plugins.run(plugin["type"], call, given)
            except NoderuntimeError as error:
                first = first or error
        if first is not None:
            raise first

    async def _readdress(self, call: Call, result: dict[str, Any]) -> None:
        """Give the pod's interface back the addresses that somebody in the pod took off it, as gVisor does.

        The bridge plugin looks there for the addresses whose masquerading it has to end.
        """
        try:
            addresses = pod_addresses(result, call.interface)
            await self._host.add_addresses(Path(call.netns), call.interface, addresses)
        except NoderuntimeError as error:
            _log.warning("a pod's addresses are not back for DEL", sandbox=call.container_id, error=error)

    async def _undo(self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, kept: Kept) -> None:
        try:
            await self._delete(sandbox_id, netns, config, kept)
        except NoderuntimeError as error:
            _log.warning("CNI DEL after a failed ADD failed too", sandbox=sandbox_id, error=error)


def plugin_config(
    network: NetworkList, plugin: Plugin, wanted: dict[str, Any], previous: dict[str, Any] | None
) -> dict[str, Any]:
    """Derive what one plugin reads on stdin (CNI spec 1.1, section 3, Deriving request configuration)."""
    config = {key: value for key, value in plugin.items() if key != "capabilities"}
    config |= {"name": network.name, "cniVersion": network.version}
    declared = plugin.get("capabilities")
    if isinstance(declared, dict):
        given = {name: wanted[name] for name, on in declared.items() if on is True and name in wanted}
        if given:
            config["runtimeConfig"] = given
    if previous is not None:
        config["prevResult"] = previous
    return config


def _signature(conf_dir: Path) -> _Signature:
    """Identify the state of the directory by what stat says of its files."""
    try:
        paths = [*conflist.files(conf_dir), *sorted(conf_dir.glob("*/*.conf"))]
    except InvalidArgument:
        return ()
    entries = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        entries.append((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(entries)
