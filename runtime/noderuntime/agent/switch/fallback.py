"""``noderuntime switch fallback``: what systemd runs when the daemon failed too often.

The release that served before takes over. If there is none, the kubelet gets its upstream back, unless pods
run that the upstream does not know: then the daemon is started again.
"""

from __future__ import annotations

import asyncio
import time

from noderuntime.agent import desired, layout
from noderuntime.agent.switch import daemon, pods, release, transaction, upgrade
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import run as apply
from noderuntime.agent.switch.context import Context, locked
from noderuntime.agent.switch.proof import Evidence
from noderuntime.agent.switch.release import Release
from noderuntime.agent.switch.upgrade_steps import CRASH_LOOP, Upgrade, accepts
from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError

_log = log.get(__name__)

_WINDOW_SECONDS = 300.0
_PAUSE_SECONDS = 60.0
NO_OTHER = "DaemonFailed"
"""The daemon keeps failing, and no other release is on the node: it is tried again, less and less often."""


async def fallback(context: Context) -> str:
    """Act on a daemon that systemd does not start any more; return one line that describes the outcome."""
    async with locked(context):
        await _end_upgrade(context)
        if not await _has_failed(context):
            return f"{layout.SERVICE} has not failed"
        last = await daemon.last_log_line(context, since=time.time() - _WINDOW_SECONDS)
        problem = f"the daemon ended five times within five minutes: {last}"
        revision = desired.load_if_valid(context.layout.switch_config).revision
        known = release.load(context.layout)
        if known.serving and known.previous and await _can_serve(context, known.previous[0]):
            outcome = await _return(context, known.serving, known.previous[0], problem)
            apply.record_failure(context, revision, CRASH_LOOP, outcome)
            return outcome
        outcome = await _without_another(context, problem)
        apply.record_failure(context, revision, NO_OTHER, outcome)
    if await _has_failed(context) and records.load_journal(context.layout.journal):
        await asyncio.sleep(_PAUSE_SECONDS * context.second)
        await context.systemd.restart(layout.SERVICE)
    return outcome


async def _end_upgrade(context: Context) -> None:
    """Roll back an interrupted upgrade: its release failed, not the one that is recorded as serving."""
    try:
        await upgrade.resume(context, expired=True)
    except NoderuntimeError as error:
        _log.error("an interrupted upgrade cannot be rolled back", error=error)


async def _has_failed(context: Context) -> bool:
    return (await context.systemd.show(layout.SERVICE, "ActiveState"))["ActiveState"] == "failed"


async def _can_serve(context: Context, previous: Release) -> bool:
    """Return whether a release can use the databases as they are now, and its programs run."""
    try:
        await accepts(context, previous, ())
    except NoderuntimeError as error:
        _log.error("the previous release cannot serve", digest=previous.digest, error=error)
        return False
    return True


async def _return(context: Context, serving: release.Release, previous: release.Release, problem: str) -> str:
    retry = desired.load_if_valid(context.layout.switch_config).retry
    journal = Upgrade(
        phase="Reverting", to=serving, origin=previous, recorded=True, retry=retry, evidence=Evidence(),
        reason=CRASH_LOOP,
    )  # fmt: skip
    return (await upgrade.roll_back(context, journal, problem)).message


async def _without_another(context: Context, problem: str) -> str:
    """Revert the kubelet to its upstream, unless pods run that the upstream does not know."""
    if pods.monitors(context):
        return f"{problem}; pods run, and no other version is on this node: it is started again"
    journal = records.load_journal(context.layout.journal)
    if journal is None:
        return problem
    after = await transaction.roll_back(context, journal)
    return f"{problem}; the kubelet uses {journal.upstream} again{after}"
