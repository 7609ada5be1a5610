"""Reconciliation of the node with its instance's spec, and the observed state.

Level-based: each reconciliation compares the spec with the node, regardless of events. If the node is in
the desired state, nothing is written and nothing is started.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from noderuntime.agent import bundle, desired, layout
from noderuntime.agent.claim import Claim
from noderuntime.agent.instance import RETRY, Instance
from noderuntime.agent.layout import Layout
from noderuntime.agent.probe import Finding, probe
from noderuntime.agent.report import HELD_BY_OTHER, HandlerState, NodeState
from noderuntime.agent.switch import release
from noderuntime.agent.switch.journal import Result, load_result, now
from noderuntime.agent.switch.release import Release
from noderuntime.agent.switch.upgrade_steps import CRASH_LOOP, REFUSED, ROLLED_BACK
from noderuntime.agent.systemd import Systemd
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.backoff import growing, jittered
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import (
    FailedPrecondition,
    Internal,
    NoderuntimeError,
    ToolError,
    Unavailable,
    Unimplemented,
)
from noderuntime.criclient import CriClient, handler_versions

_log = log.get(__name__)

CHECK_SECONDS = 600
"""Seconds between runs of the switch that check the kubelet and its files for changes."""
_VERIFY_SECONDS = 3600
_SWITCH_SECONDS = 7500.0
_RETRY_SECONDS = (60, 3600)
_REMEMBERED = (ROLLED_BACK, CRASH_LOOP)
"""Reasons after which the switch does not try the release again, so that running it changes nothing."""
_INSTALL_FAILED = "InstallFailed"
_NOT_SUPPORTED = "SpecNotSupported"
_PREVIOUS_SERVES = (*_REMEMBERED, REFUSED)

Report = Callable[[NodeState], Awaitable[None]]
Probe = Callable[[Path, list[str]], Awaitable[list[Finding]]]


class _HeldByOther(FailedPrecondition):
    """Another agent may change this node."""


@dataclass(slots=True)
class _Memory:
    """State of this agent process. It can be lost without harm."""

    verified_until: float = 0.0
    unhealthy: bool = False
    copy_failed: bool = False
    checked_until: float = 0.0


class Node:
    """The reconciler of one node. ``source`` is the bundle in the agent's image, ``image`` its name.

    ``pod`` names the agent for others, as NAMESPACE/NAME.
    """

    def __init__(
        self,
        layout: Layout,
        systemd: Systemd,
        source: Path,
        probe: Probe = probe,
        *,
        image: str = "",
        pod: str = "",
    ) -> None:
        self._layout = layout
        self._systemd = systemd
        self._source = source
        self._probe = probe
        self._image = image
        self._claim = Claim(layout.claim, pod, image)
        self._memory = _Memory()
        self.restart_seconds = 5.0
        """Seconds to wait for a daemon that does not respond, before it is reported as down."""
        self.reprobe_seconds = 1.0
        """Seconds to wait before a failed handler is probed once more."""

    async def reconcile(self, instance: Instance, report: Report) -> NodeState:
        """Reconcile the node once and return its state. ``report`` is called before steps that take long.

        After the node became unhealthy, the next call verifies the bundle and repairs it.
        """
        state = await self._reconcile(instance, report)
        unhealthy = state.phase in ("Degraded", "Failed")
        if unhealthy and not self._memory.unhealthy:
            self._memory.verified_until = 0.0
        self._memory.unhealthy = unhealthy
        return state

    def release(self) -> None:
        """Let another agent change the node. The next reconciliation claims it again."""
        self._claim.release()

    async def _reconcile(self, instance: Instance, report: Report) -> NodeState:
        state = NodeState(
            generation=instance.generation,
            phase="Pending",
            reason="Pending",
            image=self._image,
            handlers=tuple(HandlerState(name) for name in instance.handlers),
        )
        state = _with_result(state, load_result(self._layout.result))
        try:
            state = replace(state, digest=self._running_digest())
            if instance.spec.state == "Removed":
                return await self._remove(instance, state, report)
            if self._image and instance.spec.image not in (None, self._image):
                state = replace(state, generation=None)
                return await self._wait_for_image(instance, state)
            if instance.problem:
                self._leave()
                return await self._failed(state, _NOT_SUPPORTED, instance.problem)
            return await self._install(instance, state, report)
        except NoderuntimeError as error:
            reason = _reason(error)
            _log.warning("reconciling failed", reason=reason, error=error)
            if reason == _INSTALL_FAILED and instance.spec.state == "Installed":
                return await self._failed(state, reason, str(error))
            return replace(state, phase="Failed", reason=reason, message=str(error))

    async def _wait_for_image(self, instance: Instance, state: NodeState) -> NodeState:
        """Return the observed state. An agent of the instance's image will apply the spec."""
        self._leave()
        message = f"the agent's image is {self._image}: waiting for an agent of {instance.spec.image}"
        state = replace(state, reason="OtherImage", message=message)
        if state.digest is None:
            return state
        found = await self._judge(state, load_result(self._layout.result))
        return replace(found, message="; ".join(filter(None, (found.message, message))))

    async def _install(self, instance: Instance, state: NodeState, report: Report) -> NodeState:
        if instance.spec.kubelet.mode == "Replace":
            raise Unimplemented("kubelet.mode Replace is not supported yet: set Delegate or Manual")
        self._take()
        missing = not (self._layout.versions / bundle.digest_of(self._source)).is_dir()
        if missing and not self._memory.copy_failed:  # else the last attempt's problem stays
            await report(replace(state, phase="Installing", reason="CopyingBundle"))
        self._memory.copy_failed = missing
        config = await self._stage(instance)
        self._memory.copy_failed = False
        result = load_result(self._layout.result)
        if self._is_due(result, config.revision):
            if not _is_applied(result, config.revision):
                await report(replace(state, phase="Switching", reason="Switching"))
            result = await self._run_switch(config.revision)
        return await self._judge(replace(state, digest=self._running_digest()), result)

    def _take(self) -> None:
        """Claim the node before it is changed. _HeldByOther while another agent holds it."""
        if other := self._claim.take():
            raise _HeldByOther(f"{other}: nothing is changed until it ends; delete what is left over")

    def _leave(self) -> None:
        """Let another agent change the node. _HeldByOther if one holds it: only that one reports."""
        self.release()
        if other := self._claim.holder():
            raise _HeldByOther(f"{other}: this agent (image {self._image}) changes nothing")

    async def _judge(self, state: NodeState, result: Result | None) -> NodeState:
        """Return the observed state of the node after the switch's last run."""
        state = _with_result(state, result)
        if result is None or result.outcome != "Failed":
            return await self._observe(state)
        message = f"{result.message}; {_next_attempt(result)}"
        return await self._failed(state, result.reason, message)

    async def _failed(self, state: NodeState, reason: str, message: str) -> NodeState:
        """Return the observed state after a change failed: what served before still serves."""
        if state.kubelet == "Upstream" and reason not in _PREVIOUS_SERVES:
            return replace(state, phase="Failed", reason=reason, message=message)
        observed = await self._observe(state)
        phase = "Degraded" if observed.phase == "Ready" else observed.phase
        return replace(observed, phase=phase, reason=reason, message=message)

    def _running_digest(self) -> str | None:
        """Return the version that runs: not the one of this agent, if that was rolled back."""
        current = self._layout.current
        return Path(os.readlink(current)).name if current.is_symlink() else None

    async def _stage(self, instance: Instance) -> desired.SwitchConfig:
        """Lay the bundle beside the running one and stage its release; return the switch's configuration."""
        verify = time.monotonic() >= self._memory.verified_until
        changed = await FILES.run(lambda: bundle.install(self._source, self._layout, verify=verify))
        if verify:
            self._memory.verified_until = time.monotonic() + jittered(_VERIFY_SECONDS)
        digest = bundle.digest_of(self._source)
        config = desired.switch_config(instance.spec, digest, instance.retry)
        staged = desired.release(digest, self._daemon_config(instance, digest))
        content = staged.model_dump_json(indent=1).encode() + b"\n"
        changed |= files.write(self._layout.staged, content, mode=0o600)
        changed |= await self._prepare(staged)
        changed |= files.write(self._layout.switch_config, desired.render(config).encode(), mode=0o600)
        if changed:
            self._memory.checked_until = 0
        return config

    async def _prepare(self, staged: Release) -> bool:
        """Write what the switch needs to run on a node that nothing served before; repair what serves.

        Files of another release than the staged one are the switch's concern: it replaces or keeps them.
        """
        place = self._layout
        serving = release.load(place).serving
        if serving is None:
            linked = [release.link(path, staged.digest) for path in (place.proven, place.previous)]
            return await self._write_units(staged, layout.SWITCH_UNITS) or any(linked)
        if serving != staged or place.upgrade.exists():
            return False
        changed = release.write_config(place, staged)
        changed |= release.link(place.current, staged.digest)
        changed |= release.link(place.proven, staged.digest)
        return await self._write_units(staged, (*layout.DAEMON_UNITS, *layout.SWITCH_UNITS)) or changed

    async def _write_units(self, staged: Release, names: tuple[str, ...]) -> bool:
        if not release.write_units(self._layout, staged, names):
            return False
        _log.info("systemd units changed")
        await self._systemd.reload()
        return True

    def _daemon_config(self, instance: Instance, digest: str) -> str:
        """Return the daemon's configuration. A removal without handlers keeps the installed one."""
        installed = files.read(self._layout.config)
        if instance.spec.handlers:
            return desired.daemon_config(instance.spec, digest)
        if instance.spec.state == "Removed" and installed is not None:
            return installed.decode(errors="replace")
        raise FailedPrecondition("the instance names no handler: set spec.handlers")

    def _is_due(self, result: Result | None, revision: str) -> bool:
        """Return whether to run the switch: a new revision, a retry or the periodic check is due."""
        if result is None or result.revision != revision:
            return True
        if result.outcome == "Failed" and result.reason not in _REMEMBERED:
            return not result.finished <= now() < _due(result)  # a clock that was set back must not delay it
        return time.monotonic() >= self._memory.checked_until

    async def _run_switch(self, revision: str) -> Result | None:
        """Run the switch's unit on the host to completion and return its result, or None after a removal.

        The unit completes even if this agent dies.
        """
        try:
            await self._systemd.start(layout.SWITCH, timeout=_SWITCH_SECONDS)
            problem = f"{layout.SWITCH} wrote no result: see journalctl -u {layout.SWITCH}"
        except ToolError as error:
            problem = str(error)
        self._memory.checked_until = time.monotonic() + jittered(CHECK_SECONDS)
        result = load_result(self._layout.result)
        if self._layout.is_empty() or (result and result.revision == revision):
            return result
        raise Internal(problem)

    async def _observe(self, state: NodeState) -> NodeState:
        """Return the state with the daemon's version and the result of a probe of each handler."""
        try:
            version, findings, versions = await self._query([handler.name for handler in state.handlers])
        except NoderuntimeError as error:
            self._memory.checked_until = 0  # the next switch restarts the daemon
            return replace(state, phase="Failed", reason="RuntimeDown", message=str(error))
        handlers = tuple(_handler(finding, versions.get(finding.handler)) for finding in findings)
        broken = [handler for handler in handlers if handler.state == "Broken"]
        return replace(
            state,
            version=version,
            handlers=handlers,
            phase="Degraded" if broken else "Ready",
            reason="HandlerBroken" if broken else "Proven",
            message="; ".join(f"{handler.name}: {handler.message}" for handler in broken),
        )

    async def _query(self, names: list[str]) -> tuple[str, list[Finding], Mapping[str, str]]:
        """Return the daemon's version, a finding for each handler, and the versions of their binaries.

        Retry once, in case of a restart.
        """
        try:
            return await self._version(), await self._probe_twice(names), await self._handler_versions()
        except Unavailable:
            await asyncio.sleep(self.restart_seconds)
            return await self._version(), await self._probe_twice(names), await self._handler_versions()

    async def _version(self) -> str:
        async with CriClient(self._layout.socket) as client:
            return (await client.version()).runtime_version

    async def _handler_versions(self) -> Mapping[str, str]:
        """Return the versions of the handlers' binaries. A daemon that does not report them serves anyway."""
        try:
            async with CriClient(self._layout.socket) as client:
                return handler_versions(await client.status())
        except Unavailable:
            raise
        except NoderuntimeError as error:
            _log.warning("the daemon did not report the versions of its handlers", error=error)
            return {}

    async def _probe_twice(self, names: list[str]) -> list[Finding]:
        """Return a finding for each handler. A handler whose probe failed is probed once more."""
        findings = {found.handler: found for found in await self._probe(self._layout.socket, names)}
        failed = [name for name, finding in findings.items() if not finding.ready]
        if failed:
            await asyncio.sleep(self.reprobe_seconds)
            findings |= {found.handler: found for found in await self._probe(self._layout.socket, failed)}
        return [findings[name] for name in names]

    async def _remove(self, instance: Instance, state: NodeState, report: Report) -> NodeState:
        state = replace(state, handlers=())
        removed = NodeState(instance.generation, "Removed", "Removed", image=self._image)
        if self._layout.is_empty():
            self.release()
            return removed
        self._take()
        config = desired.switch_config(instance.spec, bundle.digest_of(self._source), instance.retry)
        result = load_result(self._layout.result)
        if result is None or result.revision != config.revision:  # else the last attempt's problem stays
            await report(replace(state, phase="Removing", reason="Removing"))
        await self._stage(instance)
        result = await self._run_switch(config.revision)
        if self._layout.is_empty() or result is None:
            return removed
        state = _with_result(state, result)
        return replace(state, phase="Removing", reason=result.reason, message=result.message)


def _reason(error: NoderuntimeError) -> str:
    if isinstance(error, Unimplemented):
        return "ModeNotOffered"
    return HELD_BY_OTHER if isinstance(error, _HeldByOther) else _INSTALL_FAILED


def retry_after(failures: int) -> int:
    """Return the seconds to wait after consecutive failures. An attempt can restart the kubelet twice."""
    return int(growing(failures, *_RETRY_SECONDS))


def _due(result: Result) -> datetime:
    return result.finished + timedelta(seconds=retry_after(result.failures))


def _next_attempt(result: Result) -> str:
    if result.reason in _REMEMBERED:
        return f"tried again when the annotation {RETRY} changes"
    return f"tried again at {_due(result):%H:%M:%S} UTC"


def _is_applied(result: Result | None, revision: str) -> bool:
    """Return whether the node is in the desired state: the switch only checks it then."""
    return result is not None and result.revision == revision and result.outcome != "Failed"


def _with_result(state: NodeState, result: Result | None) -> NodeState:
    if result is None:
        return state
    return replace(
        state,
        kubelet=result.kubelet,
        configured_by=result.configured_by,
        upstream_socket=result.upstream_socket,
        switched_reason=result.reason,
        shared_handlers=result.shared_handlers,
    )


def _handler(finding: Finding, version: str | None) -> HandlerState:
    if finding.ready:
        return HandlerState(finding.handler, "Ready", "Proven", version=version, probed=now())
    return HandlerState(finding.handler, "Broken", "HandlerBroken", finding.message, version, now())
