"""The pod network by CNI, with the node's own configuration and plugins.

The loopback plugin is not called: ``lo`` is up as soon as the namespace is made. A chain of one plugin costs
one process for ADD and one for DEL.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from noderuntime.core import log
from noderuntime.core.blocking import apart
from noderuntime.core.errors import DeadlineExceeded, InvalidArgument, NoderuntimeError, NotFound, Unavailable
from noderuntime.core.last_answer import LastAnswer
from noderuntime.core.paths import Paths
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.base import Host
from noderuntime.node.host.inherited_lock import inherited_lock
from noderuntime.node.network.base import Attachment
from noderuntime.node.network.capabilities import capability_args, cni_args
from noderuntime.node.network.chain import STATUS_SECONDS, Chain
from noderuntime.node.network.conflist import Configuration, NetworkList
from noderuntime.node.network.plugin import DISK_SECONDS, Call, Kept, PluginRunner, pod_addresses, pod_ips

_log = log.get(__name__)

_INTERFACE = "eth0"
_RENEW_SECONDS = 10.0
"""The age at which the plugins' STATUS is asked for again; a kubelet asks every 5 seconds."""


class CniNetwork:
    """:class:`noderuntime.node.network.base.Network` over CNI plugins."""

    def __init__(self, host: Host, conf_dir: Path, plugin_dirs: Sequence[Path], paths: Paths) -> None:
        self._host = host
        self._configuration = Configuration(conf_dir)
        self._paths = paths
        self._plugins = PluginRunner(host, plugin_dirs)
        self._turns = _Turns()
        self._status: tuple[NetworkList, LastAnswer[Literal[True]]] | None = None

    async def configuration(self) -> bytes:
        """Return the node's network; Unavailable says what is wrong with its configuration."""
        return Kept(await self._current(), None).to_bytes()

    async def attach(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, network: bytes
    ) -> Attachment:
        """Call ADD on the chain. If it fails, DEL has been called, and the error is that of the ADD."""
        given = Kept.from_bytes(network).network
        chain = Chain(self._plugins, given)
        call = Call("ADD", sandbox_id, netns, cni_args(sandbox_id, config), _INTERFACE)
        async with self._between_collections():
            try:
                async with self._lock(sandbox_id) as fds:
                    result = await chain.add(call, capability_args(config), fds)
                ips = pod_ips(result, _INTERFACE)
            except NoderuntimeError:
                await self._undo(sandbox_id, netns, config, Kept(given, chain.result))
                raise
        return Attachment(ips, Kept(given, result).to_bytes())

    async def detach(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, result: bytes
    ) -> None:
        """Call DEL on the chain with the configuration of the ADD.

        Every plugin is called even when one fails; the first error is raised then. Without a readable result,
        the node's current configuration is used; if there is none, nothing can be undone.
        """
        try:
            kept = await self._kept_or_current(result)
        except Unavailable as error:
            _log.warning("CNI DEL was not called: no configuration", sandbox=sandbox_id, error=error)
            return
        async with self._between_collections():
            await self._delete(sandbox_id, netns, config, kept)

    async def ready(self) -> tuple[bool, str]:
        """Return whether pods can be attached, and if not, why.

        Configuration and plugins must exist, and the plugins' last STATUS must have succeeded. STATUS is
        called again in the background; it is waited for only after a change of the configuration.
        """
        try:
            network = await _on_disk(self._usable)
        except (Unavailable, NotFound, DeadlineExceeded) as error:
            return False, str(error)
        if self._status is None or self._status[0] != network:
            chain = Chain(self._plugins, network)
            self._status = network, LastAnswer(f"STATUS of CNI network {network.name}", chain.status)
        answer = await self._status[1].get(
            seconds=STATUS_SECONDS + 1, renew=_RENEW_SECONDS, retry=_RENEW_SECONDS
        )
        return answer is True, "" if answer is True else str(answer)

    async def collect_garbage(self, attachments: Callable[[], Mapping[str, bytes]]) -> None:
        """Call GC on the plugins of each network, while ADD and DEL wait (CNI spec 1.1, section 3).

        Every network and plugin is called even when one fails; the first error is raised then.
        """
        async with self._turns.alone(), self._collection_lock() as fds:
            current = await self._current()
            networks = {sandbox_id: _network(kept) for sandbox_id, kept in attachments().items()}
            by_name = {network.name: network for network in networks.values() if network} | {
                current.name: current
            }
            first: NoderuntimeError | None = None
            for name, network in by_name.items():
                valid = [sandbox_id for sandbox_id, of in networks.items() if of is None or of.name == name]
                try:
                    await Chain(self._plugins, network).collect_garbage(valid, _INTERFACE, fds)
                except NoderuntimeError as error:
                    first = first or error
            if first is not None:
                raise first

    @asynccontextmanager
    async def _between_collections(self) -> AsyncIterator[None]:
        """Keep GC from running in the block, also one that an earlier daemon started."""
        async with self._turns.shared():
            try:
                async with self._collection_lock():
                    pass
            except DeadlineExceeded as error:  # it is killed: all that it can still do is end
                _log.warning("CNI GC of an earlier daemon does not end", error=error)
            yield

    def _collection_lock(self) -> AbstractAsyncContextManager[Sequence[int]]:
        return inherited_lock(self._paths.run_dir, "CNI GC")

    async def _kept_or_current(self, result: bytes) -> Kept:
        try:
            return Kept.from_bytes(result)
        except InvalidArgument:
            return Kept(await self._current(), None)

    async def _current(self) -> NetworkList:
        return await _on_disk(self._configuration.current)

    def _usable(self) -> NetworkList:
        """Return the node's network if all of its plugins are installed. Blocks."""
        network = self._configuration.current()
        for plugin in network.plugins:
            self._plugins.find(plugin["type"])
        return network

    def _lock(self, sandbox_id: str) -> AbstractAsyncContextManager[Sequence[int]]:
        """Keep plugins of a sandbox from running beside others that an earlier daemon started."""
        return inherited_lock(self._paths.sandbox(sandbox_id).dir, f"CNI plugins of sandbox {sandbox_id}")

    async def _delete(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, kept: Kept
    ) -> None:
        alive = _if_exists(netns)
        call = Call("DEL", sandbox_id, alive, cni_args(sandbox_id, config), _INTERFACE)
        async with self._lock(sandbox_id) as fds:
            if alive:
                await self._restore_addresses(call, kept.result or {})
            await Chain(self._plugins, kept.network).delete(call, capability_args(config), kept.result, fds)

    async def _restore_addresses(self, call: Call, result: dict[str, Any]) -> None:
        """Give the pod's interface the addresses back that the pod removed, as gVisor does.

        The bridge plugin reads from the interface for which addresses it has to remove masquerading.
        """
        try:
            addresses = pod_addresses(result, call.interface)
            await self._host.add_addresses(Path(call.netns), call.interface, addresses)
        except NoderuntimeError as error:
            _log.warning("addresses were not restored before DEL", sandbox=call.container_id, error=error)

    async def _undo(self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, kept: Kept) -> None:
        try:
            await self._delete(sandbox_id, netns, config, kept)
        except NoderuntimeError as error:
            _log.warning("CNI DEL failed after a failed ADD", sandbox=sandbox_id, error=error)


class _Turns:
    """Calls that run side by side, and one that runs alone, when none of the others does."""

    def __init__(self) -> None:
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._alone:
            self._running += 1
            self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait for a moment without the others, who do not wait for one that waits."""
        while True:
            await self._idle.wait()
            async with self._alone:
                if not self._running:
                    yield
                    return


def _network(kept: bytes) -> NetworkList | None:
    """Return the network of an attachment; None if it is unknown."""
    try:
        return Kept.from_bytes(kept).network
    except InvalidArgument:
        return None


def _if_exists(netns: str) -> str:
    """Return the path of a namespace's pin, which is on a tmpfs; empty if the namespace is gone."""
    return netns if os.path.exists(netns) else ""


async def _on_disk(call: Callable[[], NetworkList]) -> NetworkList:
    what = "read of the CNI configuration"
    return await apart(call, what=what, seconds=DISK_SECONDS, subject=what, abandon=True)
