"""A network's plugins, called one after the other (CNI spec 1.1, section 3).

======  ================================  ==========================================
ADD     in order                          ends at the first error
DEL     in reverse order                  calls every plugin, raises the first error
STATUS  in order, since version 1.1.0     ends at the first error
GC      in order, since version 1.1.0     calls every plugin, raises the first error
======  ================================  ==========================================
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from noderuntime.core.errors import NoderuntimeError
from noderuntime.node.network.conflist import NetworkList, Plugin
from noderuntime.node.network.plugin import Call, PluginRunner

_ADD_SECONDS = 90.0
"""For the chain. A kubelet gives up on RunPodSandbox after 4 minutes; a DEL has to fit in as well."""
_DEL_SECONDS = 90.0
"""For the chain. A kubelet gives up on StopPodSandbox after 2 minutes."""
_DEL_PLUGIN_SECONDS = 30.0
STATUS_SECONDS = 5.0
"""For the chain."""
_GC_SECONDS = 20.0
"""For the chain. Pods wait meanwhile."""


class Chain:
    """The plugins of one network. Each of them inherits the descriptors ``fds`` of its call."""

    def __init__(self, runner: PluginRunner, network: NetworkList) -> None:
        self._runner = runner
        self._network = network
        self.result: dict[str, Any] | None = None
        """The result of the last ADD that succeeded."""

    async def add(
        self, call: Call, capabilities: Mapping[str, Any], fds: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Call ADD on each plugin, which gets the result of the one before, and return the last result."""
        deadline = time.monotonic() + _ADD_SECONDS
        for plugin in self._network.plugins:
            config = self._attachment_config(plugin, capabilities, self.result)
            timeout = max(deadline - time.monotonic(), 0)
            self.result = await self._runner.run(plugin["type"], call, config, timeout=timeout, pass_fds=fds)
        return self.result or {}

    async def delete(
        self,
        call: Call,
        capabilities: Mapping[str, Any],
        result: Mapping[str, Any] | None,
        fds: Sequence[int] = (),
    ) -> None:
        """Call DEL on each plugin with the result of ADD, if there is one."""
        previous = result if self._network.at_least("0.4.0") else None
        plugins = self._network.plugins
        await self._run_all(
            [
                (plugin, self._attachment_config(plugin, capabilities, previous))
                for plugin in reversed(plugins)
            ],
            call,
            fds,
            min(_DEL_PLUGIN_SECONDS, _DEL_SECONDS / len(plugins)),
        )

    async def status(self) -> Literal[True]:
        """Call STATUS on each plugin: can it serve ADD? The error of one that cannot is ToolError."""
        if self._network.at_least("1.1.0"):
            deadline = time.monotonic() + STATUS_SECONDS
            for plugin in self._network.plugins:
                timeout = max(deadline - time.monotonic(), 0)
                await self._runner.run(plugin["type"], Call("STATUS"), self._config(plugin), timeout=timeout)
        return True

    async def collect_garbage(
        self, container_ids: Iterable[str], interface: str, fds: Sequence[int] = ()
    ) -> None:
        """Call GC on each plugin, unless the network disables it: remove what belongs to no listed container.

        A plugin that is killed may have left something, which the next GC removes.
        """
        if self._network.disable_gc or not self._network.at_least("1.1.0"):
            return
        valid = [{"containerID": one, "ifname": interface} for one in container_ids]
        # The second key is the name that the specification had first; without it such a plugin removes all.
        added = {"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid}
        plugins = self._network.plugins
        await self._run_all(
            [(plugin, self._config(plugin) | added) for plugin in plugins],
            Call("GC"),
            fds,
            _GC_SECONDS / len(plugins),
        )

    async def _run_all(
        self,
        configs: Iterable[tuple[Plugin, Mapping[str, Any]]],
        call: Call,
        fds: Sequence[int],
        timeout: float,
    ) -> None:
        """Call every plugin, even when one fails, then raise the first error."""
        first: NoderuntimeError | None = None
        for plugin, config in configs:
            try:
                await self._runner.run(plugin["type"], call, config, timeout=timeout, pass_fds=fds)
            except NoderuntimeError as error:
                first = first or error
        if first is not None:
            raise first

    def _attachment_config(
        self, plugin: Plugin, capabilities: Mapping[str, Any], previous: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return what a plugin reads from stdin at ADD and DEL."""
        config = self._config(plugin)
        declared = config.pop("capabilities", None)
        if isinstance(declared, dict):
            granted = {name for name, supported in declared.items() if supported is True}
            given = {name: value for name, value in capabilities.items() if name in granted}
            if given:
                config["runtimeConfig"] = given
        if previous is not None:
            config["prevResult"] = previous
        return config

    def _config(self, plugin: Plugin) -> dict[str, Any]:
        """Return what a plugin reads from stdin (section 3, Deriving request configuration)."""
        return {**plugin, "name": self._network.name, "cniVersion": self._network.version}
