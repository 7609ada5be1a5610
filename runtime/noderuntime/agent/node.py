"""One turn of the agent: the node brought towards its instance's spec, and what was seen on the way.

By level: every turn looks at the spec and at the node, never at what an event said, and
a turn on a node that is as it should be writes nothing and starts nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from noderuntime.agent import bundle, layout, order, units
from noderuntime.agent import durable_files as files
from noderuntime.agent.instance import Instance
from noderuntime.agent.layout import Layout
from noderuntime.agent.probe import Finding, probe
from noderuntime.agent.report import HandlerState, NodeState
from noderuntime.agent.switch.journal import Result, load_result, now
from noderuntime.agent.systemd import Systemd
from noderuntime.core import log
from noderuntime.core.errors import (
    FailedPrecondition,
    Internal,
    NoderuntimeError,
    ToolError,
    Unavailable,
    Unimplemented,
)
from noderuntime.criclient import CriClient

_log = log.get(__name__)

CHECK_SECONDS = 600
"""So often the switch looks whether the kubelet and its files are still as it left them."""
_VERIFY_SECONDS = 3600
_AGAIN_SECONDS = 1.0
_SWITCH_SECONDS = 7500.0
_RETRY_SECONDS = (60, 3600)

Tell = Callable[[NodeState], Awaitable[None]]
Probe = Callable[[Path, list[str]], Awaitable[list[Finding]]]


@dataclass(slots=True)
class _Memory:
    """What is known only since this agent runs; all of it can be lost."""

    verified_until: float = 0.0
    troubled: bool = False
    checked_until: float = 0.0
    version: str | None = None


class Node:
    """The node, below ``layout``; ``source`` is the bundle in the agent's image."""

    def __init__(self, layout: Layout, systemd: Systemd, source: Path, probe: Probe = probe) -> None:
        self._layout = layout
        self._systemd = systemd
        self._source = source
        self._probe = probe
        self._memory = _Memory()
        self.restart_seconds = 5.0
        """What a daemon that does not answer is given before it counts as down."""

    async def turn(self, instance: Instance, tell: Tell) -> NodeState:
        """Bring the node one turn further; ``tell`` is called for what takes a while. Returns the state.

        New trouble is reported as it was seen; the next turn looks whether the bundle was damaged.
        """
        state = await self._turn(instance, tell)
        troubled = state.phase in ("Degraded", "Failed")
        if troubled and not self._memory.troubled:
            self._memory.verified_until = 0.0
        self._memory.troubled = troubled
        return state

    async def _turn(self, instance: Instance, tell: Tell) -> NodeState:
        state = NodeState(
            generation=instance.generation,
            phase="Pending",
            reason="Pending",
            handlers=tuple(HandlerState(one.name) for one in instance.spec.handlers),
        )
        try:
            state = replace(state, digest=bundle.digest_of(self._source))
            if instance.spec.state == "Removed":
                return await self._remove(instance, state, tell)
            return await self._install(instance, state, tell)
        except Unimplemented as error:
            return replace(state, phase="Failed", reason="ModeNotOffered", message=str(error))
        except NoderuntimeError as error:
            _log.warning("the turn failed", error=error)
            return replace(state, phase="Failed", reason="InstallFailed", message=str(error))

    async def _install(self, instance: Instance, state: NodeState, tell: Tell) -> NodeState:
        if instance.spec.kubelet.mode == "Replace":
            raise Unimplemented("kubelet.mode Replace is not offered yet: choose Delegate or Manual")
        if not (self._layout.versions / (state.digest or "")).is_dir():
            await tell(replace(state, phase="Installing", reason="CopyingBundle"))
        wanted = await self._place(instance)
        result = load_result(self._layout.result)
        if self._is_due(result, wanted.revision):
            await tell(_with_result(replace(state, phase="Switching", reason="Switching"), result))
            result = await self._run_switch(wanted.revision)
        state = _with_result(state, result)
        if result is None or result.outcome != "Failed":
            return await self._observe(state)
        failed = replace(state, phase="Failed", reason=result.reason, message=result.message)
        if result.kubelet == "Upstream":
            return failed
        # The node is ours and lives on; what failed was to make it as it is asked for now.
        seen = await self._observe(state)
        phase = "Degraded" if seen.phase == "Ready" else seen.phase
        return replace(seen, phase=phase, reason=result.reason, message=result.message)

    async def _place(self, instance: Instance) -> order.Order:
        """Have everything of ours on the node's disk as it should be; systemd told of new units."""
        verify = time.monotonic() >= self._memory.verified_until
        changed = await asyncio.to_thread(bundle.install, self._source, self._layout, verify=verify)
        if verify:
            self._memory.verified_until = time.monotonic() + _jittered(_VERIFY_SECONDS)
        digest = bundle.digest_of(self._source)
        wanted = order.switch_order(instance.spec, digest)
        config = self._config(instance, digest)
        changed |= files.write(self._layout.config, config.encode(), mode=0o600)
        changed |= await self._place_units(units.daemon_revision(digest, config), wanted.timeout_seconds)
        changed |= files.write(self._layout.order, order.render(wanted).encode(), mode=0o600)
        if changed:
            self._memory.checked_until = 0
        return wanted

    def _config(self, instance: Instance, digest: str) -> str:
        """Return the daemon's configuration; who orders a removal need not name the handlers again."""
        known = files.read(self._layout.config)
        if instance.spec.handlers:
            return order.daemon_config(instance.spec, digest)
        if instance.spec.state == "Removed" and known is not None:
            return known.decode(errors="replace")
        raise FailedPrecondition("the instance names no handler")

    async def _place_units(self, revision: str, timeout_seconds: int) -> bool:
        texts = units.render(revision=revision, timeout_seconds=timeout_seconds)
        written = [files.write(self._layout.units / name, text.encode()) for name, text in texts.items()]
        if any(written):
            _log.info("units were written", units=sum(written))
            await self._systemd.reload()
        return any(written)

    def _is_due(self, result: Result | None, revision: str) -> bool:
        """Tell whether the switch has something to do: new orders, a failure to retry, or a look to take."""
        if result is None or result.revision != revision:
            return True
        if result.outcome == "Failed":
            return now() >= result.finished + timedelta(seconds=retry_after(result.failures))
        return time.monotonic() >= self._memory.checked_until

    async def _run_switch(self, revision: str) -> Result | None:
        """Run the host's unit to its end, however long it takes; return its result.

        None when nothing of us is left, as after a removal. The unit does not care if this agent dies.
        """
        try:
            await self._systemd.start(layout.SWITCH, timeout=_SWITCH_SECONDS)
            trouble = f"{layout.SWITCH} left no result: see its journal"
        except ToolError as error:
            trouble = str(error)
        self._memory.checked_until = time.monotonic() + _jittered(CHECK_SECONDS)
        result = load_result(self._layout.result)
        if self._layout.is_empty() or (result and result.revision == revision):
            return result
        raise Internal(trouble)

    async def _observe(self, state: NodeState) -> NodeState:
        """Ask the daemon for its version and prove each handler."""
        try:
            version, findings = await self._ask([one.name for one in state.handlers])
        except NoderuntimeError as error:
            self._memory.checked_until = 0  # the switch starts it again
            return replace(state, phase="Failed", reason="RuntimeDown", message=str(error))
        handlers = tuple(_handler(finding) for finding in findings)
        broken = [one for one in handlers if one.state == "Broken"]
        return replace(
            state,
            version=version,
            handlers=handlers,
            phase="Degraded" if broken else "Ready",
            reason="HandlerBroken" if broken else "Proven",
            message="; ".join(f"{one.name}: {one.message}" for one in broken),
        )

    async def _ask(self, names: list[str]) -> tuple[str, list[Finding]]:
        """Return the daemon's version and a finding for each handler; bridges a restart of the daemon."""
        try:
            return await self._version(), await self._prove(names)
        except Unavailable:
            await asyncio.sleep(self.restart_seconds)
            return await self._version(), await self._prove(names)

    async def _version(self) -> str:
        async with CriClient(self._layout.socket) as client:
            return (await client.version()).runtime_version

    async def _prove(self, names: list[str]) -> list[Finding]:
        """Probe; what failed gets a second chance before it is called broken."""
        findings = {one.handler: one for one in await self._probe(self._layout.socket, names)}
        failed = [name for name, finding in findings.items() if not finding.ready]
        if failed:
            await asyncio.sleep(_AGAIN_SECONDS)
            findings |= {one.handler: one for one in await self._probe(self._layout.socket, failed)}
        return [findings[name] for name in names]

    async def _remove(self, instance: Instance, state: NodeState, tell: Tell) -> NodeState:
        state = replace(state, handlers=())
        if self._layout.is_empty():
            return replace(state, digest=None, phase="Removed", reason="Removed")
        await tell(_with_result(replace(state, phase="Removing", reason="Removing"), None))
        wanted = await self._place(instance)
        result = await self._run_switch(wanted.revision)
        if self._layout.is_empty() or result is None:
            return replace(state, digest=None, phase="Removed", reason="Removed")
        state = _with_result(state, result)
        return replace(state, phase="Removing", reason=result.reason, message=result.message)


def retry_after(failures: int) -> int:
    """Return the seconds to wait after so many failures in a row: a try may restart the kubelet twice."""
    first, longest = _RETRY_SECONDS
    return int(min(first * 2 ** min(failures - 1, 10), longest))


def _with_result(state: NodeState, result: Result | None) -> NodeState:
    if result is None:
        return state
    return replace(
        state,
        kubelet=result.kubelet,
        configured_by=result.configured_by,
        upstream_socket=result.upstream_socket,
        switched_reason=result.reason,
    )


def _handler(finding: Finding) -> HandlerState:
    if finding.ready:
        return HandlerState(finding.handler, "Ready", "Proven", probed=now())
    return HandlerState(finding.handler, "Broken", "HandlerBroken", finding.trouble, probed=now())


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
