"""The proof that a release serves as well as the one before it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

from noderuntime import config
from noderuntime.agent import layout, probe
from noderuntime.agent.layout import Layout
from noderuntime.agent.switch import daemon, health
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch.context import Context
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError

_log = log.get(__name__)

_LIST_SECONDS = 10.0
_KUBELET_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the daemon served before an upgrade."""

    running: frozenset[str] = frozenset()
    """IDs of its sandboxes and containers that ran."""
    handlers: frozenset[str] = frozenset()
    """Handlers whose canary succeeded."""
    kubelet: bool = False
    """Whether the kubelet used it and was healthy."""


async def collect(context: Context) -> Evidence:
    """Return what the running daemon serves. Nothing, if it does not respond."""
    place = context.layout
    try:
        findings = await probe.probe(place.socket, config.load(place.config).handlers)
        handlers = frozenset(finding.handler for finding in findings if finding.ready)
        return Evidence(await daemon.running(context), handlers, await _kubelet_problem(context) is None)
    except NoderuntimeError as error:
        _log.warning("the running daemon serves nothing that an upgrade could lose", error=error)
        return Evidence()


async def prove(context: Context, before: Evidence) -> None:
    """Raise FailedPrecondition if the daemon does not serve what it served before.

    Containers may have ended, and pods may have been removed: what is missing is lost if its process runs.
    """
    pid = await context.systemd.main_pid(layout.SERVICE)
    await _check_list(context, before.running)
    verification = await daemon.verify(context)
    failed = [finding for finding in verification.broken if finding.handler in before.handlers]
    if failed:
        causes = "; ".join(f"{finding.handler}: {finding.message}" for finding in failed)
        raise FailedPrecondition(f"handlers that worked before fail: {causes}")
    if before.kubelet and (problem := await _wait_for_kubelet(context)):
        raise FailedPrecondition(problem)
    if await context.systemd.main_pid(layout.SERVICE) != pid:
        raise FailedPrecondition("the daemon ended while it was verified")


async def _check_list(context: Context, expected: frozenset[str]) -> None:
    deadline = time.monotonic() + _LIST_SECONDS * context.second
    while lost := _living(context.layout, expected - await daemon.running(context)):
        if time.monotonic() > deadline:
            raise FailedPrecondition(f"pods or containers that run are not listed: {', '.join(lost[:5])}")
        await asyncio.sleep(context.pause / 2)


def _living(place: Layout, identifiers: frozenset[str]) -> list[str]:
    """Return the IDs that are in the command line of a process: their monitor or runtime still runs."""
    lines = [_command_line(place, name) for name in os.listdir(place.proc) if name.isdigit()]
    return sorted(found for found in identifiers if any(found.encode() in line for line in lines))


def _command_line(place: Layout, pid: str) -> bytes:
    try:
        return (place.proc / pid / "cmdline").read_bytes()
    except OSError:
        return b""


async def _wait_for_kubelet(context: Context) -> str | None:
    journal = records.load_journal(context.layout.journal)
    if journal is None:
        return None
    return await health.wait_until_healthy(
        context, journal.unit, journal.healthz_port, on_noderuntime=True, seconds=_KUBELET_SECONDS
    )


async def _kubelet_problem(context: Context) -> str | None:
    journal = records.load_journal(context.layout.journal)
    if journal is None:
        return "the kubelet uses its upstream"
    pid = await context.systemd.main_pid(journal.unit)
    return await health.check(context.layout, pid, journal.healthz_port, on_noderuntime=True)
