"""The transaction that replaces the release that serves, and its rollback.

    (no journal) ──begin──► Upgrading ──record──► (no journal, the new release serves)
         ▲                      │
         └───── roll_back ◄─────┴──── Reverting

The version that served last does this, from its own directory. The new version is checked before anything is
changed. Every step can be interrupted: the journal is on disk and the timer is armed before the first file
changes, and each step is idempotent. ``releases.json`` decides: an upgrade that is recorded there is
finished, any other is completed if the new release serves, and otherwise rolled back.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence

from noderuntime.agent import layout
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import release
from noderuntime.agent.switch import upgrade_steps as steps
from noderuntime.agent.switch.context import Context, Step, walk
from noderuntime.agent.switch.proof import collect
from noderuntime.agent.switch.release import Failure, Release
from noderuntime.agent.switch.upgrade_steps import Upgrade
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, Internal, NoderuntimeError

_log = log.get(__name__)


async def bring(context: Context, retry: str) -> Failure | None:
    """Bring the staged release into service, and return why it does not serve, or None.

    A release that was rolled back is not tried again until ``retry`` changes. Without a daemon that
    serves, there is nothing to lose: the files are installed and :func:`record` must follow the proof.
    """
    place = context.layout
    staged, known = release.staged(place), release.load(place)
    if staged is None:
        return None
    if staged == known.serving or (known.serving is None and not await _can_lose(context, staged)):
        await _install(context, staged)
        steps.link_programs(context)
        return None
    if known.failed and (known.failed.revision, known.failed.retry) == (staged.revision, retry):
        return known.failed
    origin = known.serving or release.installed(place)
    if origin is None:
        raise FailedPrecondition(f"{place.releases} names no release: remove the file to install again")
    upgrade = Upgrade(
        phase="Upgrading", to=staged, origin=origin, recorded=known.serving is not None, retry=retry,
        evidence=await collect(context),
    )  # fmt: skip
    return await _upgrade(context, upgrade)


def record(context: Context) -> None:
    """Record that the staged release serves, if none was recorded before."""
    staged, known = release.staged(context.layout), release.load(context.layout)
    if staged and known.serving is None and release.is_installed(context.layout, staged):
        records.save(context.layout.releases, known.promote(staged))
        steps.link_programs(context)


async def resume(context: Context, *, expired: bool = False) -> None:
    """Finish an interrupted upgrade: complete it if the new release serves, else roll it back.

    With ``expired``, its time is over: it is rolled back unless it is recorded.
    """
    try:
        upgrade = records.load(context.layout.upgrade, Upgrade)
    except Internal as error:
        raise Internal(f"{error}; remove this file to start the upgrade again") from error
    if upgrade is None:
        return
    _log.warning("an earlier upgrade was interrupted", phase=upgrade.phase, digest=upgrade.to.digest)
    started = release.is_installed(context.layout, upgrade.to)
    if upgrade.phase == "Upgrading" and release.load(context.layout).serving == upgrade.to:
        await walk(context, steps.FINISH, upgrade)
    elif upgrade.phase == "Upgrading" and started and not expired:
        await _change(context, (steps.arm, steps.start, steps.prove), upgrade)
    else:
        upgrade.blamed &= (started and not steps.is_proven(context)) or upgrade.phase == "Reverting"
        await roll_back(context, upgrade, upgrade.problem or "the upgrade was interrupted")


async def roll_back(context: Context, upgrade: Upgrade, problem: str) -> Failure:
    """Put the previous release back into service and return the failure, which is remembered."""
    upgrade.phase, upgrade.problem = "Reverting", problem
    _log.warning("returning to the previous release", digest=upgrade.origin.digest, problem=problem)
    failed = [step.__name__ for step in steps.RESTORE if not await _attempt(context, step, upgrade)]
    if steps.ESSENTIAL.isdisjoint(failed):
        await walk(context, (steps.end,), upgrade)
    return steps.failure(upgrade)


async def _attempt(context: Context, step: Step[Upgrade], upgrade: Upgrade) -> bool:
    """Take one step back. If it fails, the next ones are still taken: the old daemon must run again."""
    try:
        await walk(context, (step,), upgrade)
    except (NoderuntimeError, OSError, sqlite3.Error) as error:
        _log.error("a step of the rollback failed", step=step.__name__, error=error)
        upgrade.problem += f"; {step.__name__.replace('_', ' ')}: {error}"
        return False
    return True


async def _can_lose(context: Context, staged: Release) -> bool:
    """Return whether a daemon of another release runs, which no record names."""
    active = (await context.systemd.show(layout.SERVICE, "ActiveState"))["ActiveState"] == "active"
    return active and not release.is_installed(context.layout, staged)


async def _install(context: Context, staged: Release) -> None:
    """Write the files that differ."""
    place = context.layout
    release.write_config(place, staged)
    release.link(place.current, staged.digest)
    if release.write_units(place, staged, (*layout.DAEMON_UNITS, *layout.SWITCH_UNITS)):
        await context.systemd.reload()


async def _upgrade(context: Context, upgrade: Upgrade) -> Failure | None:
    try:
        await walk(context, steps.PREPARE, upgrade)
    except (NoderuntimeError, OSError) as error:
        steps.clean(context)
        _log.warning("the new release was refused", digest=upgrade.to.digest, error=error)
        upgrade.blamed, upgrade.problem = False, str(error)
        return steps.failure(upgrade)
    return await _change(context, steps.CHANGE, upgrade)


async def _change(context: Context, taken: Sequence[Step[Upgrade]], upgrade: Upgrade) -> Failure | None:
    """Take steps to the new release and commit, or roll back if one fails or the deadline passes."""
    try:
        async with asyncio.timeout(steps.DEADLINE * context.second):
            await walk(context, taken, upgrade)
    except TimeoutError:
        problem = f"it was not proven within {steps.DEADLINE} s"
    except (NoderuntimeError, OSError, sqlite3.Error) as error:
        problem = str(error)
    else:
        await walk(context, steps.COMMIT, upgrade)
        return None
    upgrade.blamed &= release.is_installed(context.layout, upgrade.to)
    return await roll_back(context, upgrade, problem)
