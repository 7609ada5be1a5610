"""The steps of an upgrade and of its rollback, in lists: each step is idempotent and can be interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from noderuntime.agent import layout
from noderuntime.agent.switch import daemon, databases, proof, release, timer
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch.context import Context, Step
from noderuntime.agent.switch.proof import Evidence
from noderuntime.agent.switch.release import Failure, Release
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.errors import DeadlineExceeded, NoderuntimeError, ToolError

_log = log.get(__name__)

DEADLINE = 60
"""Seconds in which a release must be proven."""
_START_SECONDS = 12.0
"""Seconds in which a release must serve its socket.

A kubelet is NotReady 30 s after the last status that it read, and reads one every 5 s: with the stop of this
daemon and the start of the previous one, the socket is away for less than 20 s.
"""
_STOP_SECONDS = 10.0
_RESTART_SECONDS = 60.0
_ROLLBACK_SECONDS = 120
_CHECK_SECONDS = 60.0

REFUSED = "UpgradeRefused"
"""The new version was not started: it is tried again."""
ROLLED_BACK = "UpgradeRolledBack"
CRASH_LOOP = "DaemonCrashLoop"


class Upgrade(BaseModel):
    """The journal of an upgrade."""

    phase: Literal["Upgrading", "Reverting"]
    to: Release
    origin: Release
    """What served before, or was at least installed."""
    recorded: bool
    """Whether ``releases.json`` has the origin; a version that has no such file reads no newer databases."""
    retry: str
    evidence: Evidence
    reason: str = ROLLED_BACK
    problem: str = ""
    blamed: bool = True
    """Whether the failure is the release's: one that was never started has not failed."""


async def check(context: Context, upgrade: Upgrade) -> None:
    """Have the new version check configuration, tools and databases. ToolError with its message otherwise."""
    await accepts(context, upgrade.to, upgrade.evidence.handlers)


async def accepts(context: Context, candidate: Release, handlers: Collection[str]) -> None:
    """Raise ToolError if a release's version refuses the node. These handlers' programs must run."""
    place = context.layout
    file = place.upgrade.with_name("config.toml")
    files.write(file, candidate.config.encode(), mode=0o600)
    program = place.versions / candidate.digest / "bin/noderuntime"
    drop_ins = place.upstream_config.parent
    argv = [str(program), "check", f"--config={file}", f"--drop-ins={drop_ins}"]
    required = ",".join(sorted(handlers))
    done = await context.host.run([*argv, f"--handlers={required}"], timeout=_CHECK_SECONDS)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").splitlines() or ["no output"]
        raise ToolError("noderuntime", "check", done.returncode, lines[-1].removeprefix("noderuntime: "))


async def begin(context: Context, upgrade: Upgrade) -> None:
    """Save the journal: from here on an interruption is rolled back."""
    files.remove(_proven(context))
    records.save(context.layout.upgrade, upgrade)


async def arm(context: Context, upgrade: Upgrade) -> None:
    """Start the timer, which rolls back if everything of ours is killed."""
    await timer.arm(context, DEADLINE)


async def write_units(context: Context, upgrade: Upgrade) -> None:
    """Write the daemon's units. Its process is the old one until it is stopped."""
    if release.write_units(context.layout, upgrade.to, layout.DAEMON_UNITS):
        await context.systemd.reload()


async def stop(context: Context, upgrade: Upgrade) -> None:
    """Stop the old daemon, by SIGKILL if it hangs. Containers keep running."""
    try:
        await context.systemd.stop(layout.SERVICE, timeout=_STOP_SECONDS)
    except DeadlineExceeded:
        await context.systemd.kill(layout.SERVICE)


async def copy_databases(context: Context, upgrade: Upgrade) -> None:
    """Copy the databases, which nothing has open now."""
    databases.save(context.layout)


async def write_config(context: Context, upgrade: Upgrade) -> None:
    """Write the daemon's configuration."""
    release.write_config(context.layout, upgrade.to)


async def link(context: Context, upgrade: Upgrade) -> None:
    """Point ``current`` at the new version."""
    release.link(context.layout.current, upgrade.to.digest)


async def start(context: Context, upgrade: Upgrade) -> None:
    """Start the new daemon and wait until it serves its socket."""
    await daemon.start(context, seconds=_START_SECONDS)


async def prove(context: Context, upgrade: Upgrade) -> None:
    """Prove that it serves what the old one served, and remember that even if the disk is full."""
    await proof.prove(context, upgrade.evidence)
    with suppress(NoderuntimeError):
        files.link(_proven(context), context.layout.upgrade.name)


def is_proven(context: Context) -> bool:
    """Return whether the new release of an interrupted upgrade was proven."""
    return _proven(context).is_symlink()


def _proven(context: Context) -> Path:
    """Return the path of a symlink, which needs no block of a full disk."""
    return context.layout.upgrade.with_name("proven")


async def record(context: Context, upgrade: Upgrade) -> None:
    """Record that the new release serves: from here on an interruption is completed."""
    known = release.load(context.layout)
    if not upgrade.recorded:
        known = known.model_copy(update={"serving": upgrade.origin})
    records.save(context.layout.releases, known.promote(upgrade.to))


async def hand_over(context: Context, upgrade: Upgrade) -> None:
    """Have switch and fallback run from the versions that the record names."""
    link_programs(context)
    if release.write_units(context.layout, upgrade.to, layout.SWITCH_UNITS):
        await context.systemd.reload()


async def end(context: Context, upgrade: Upgrade) -> None:
    """Remove the journal and stop the timer."""
    clean(context)
    await timer.disarm(context)


async def mark(context: Context, upgrade: Upgrade) -> None:
    """Save that the upgrade is being rolled back, and why; the timer begins again."""
    records.save(context.layout.upgrade, upgrade)
    await timer.arm(context, _ROLLBACK_SECONDS)


async def kill(context: Context, upgrade: Upgrade) -> None:
    """Kill the new daemon, which may hang. Containers keep running."""
    await context.systemd.kill(layout.SERVICE)


async def restore_files(context: Context, upgrade: Upgrade) -> None:
    """Restore configuration, units and ``current``."""
    place = context.layout
    release.write_config(place, upgrade.origin)
    release.write_units(place, upgrade.origin, (*layout.DAEMON_UNITS, *layout.SWITCH_UNITS))
    release.link(place.current, upgrade.origin.digest)
    await context.systemd.reload()


async def restore_databases(context: Context, upgrade: Upgrade) -> None:
    """Restore the databases that the old version cannot use."""
    databases.restore(context.layout, reads_newer=upgrade.recorded)


async def restart(context: Context, upgrade: Upgrade) -> None:
    """Start the old daemon. If it fails too, the failure is recorded and the rollback still ends."""
    try:
        await daemon.start(context, seconds=_RESTART_SECONDS)
    except NoderuntimeError as error:
        _log.error("the previous release does not serve", error=error)
        upgrade.problem += f"; the previous version does not serve either: {error}"


async def remember(context: Context, upgrade: Upgrade) -> None:
    """Record the failure, and that the previous release serves if the failed one was recorded."""
    known, cause = release.load(context.layout), failure(upgrade)
    demoted = known.serving == upgrade.to
    if upgrade.blamed:
        after = known.demote(cause) if demoted else known.model_copy(update={"failed": cause})
        records.save(context.layout.releases, after)
    link_programs(context)


PREPARE: tuple[Step[Upgrade], ...] = (check, begin)
FINISH: tuple[Step[Upgrade], ...] = (hand_over, end)
CHANGE: tuple[Step[Upgrade], ...] = (
    arm, write_units, stop, copy_databases, write_config, link, start, prove,
)  # fmt: skip
COMMIT: tuple[Step[Upgrade], ...] = (record, *FINISH)
UPGRADE = (*PREPARE, *CHANGE, *COMMIT)
RESTORE: tuple[Step[Upgrade], ...] = (mark, kill, restore_files, restore_databases, restart, remember)
ROLLBACK = (*RESTORE, end)
ESSENTIAL = frozenset(step.__name__ for step in (restore_files, restore_databases))
"""Steps of a rollback that must succeed before the journal is removed: it is repeated otherwise."""


def failure(upgrade: Upgrade) -> Failure:
    """Return the failure. The node remembers it if the release is to blame."""
    reason, outcome = (upgrade.reason, "rolled back") if upgrade.blamed else (REFUSED, "not started")
    message = f"version {upgrade.to.digest} was {outcome}: {upgrade.problem}"
    return Failure(revision=upgrade.to.revision, retry=upgrade.retry, reason=reason, message=message[:500])


def link_programs(context: Context) -> None:
    """Point ``proven`` at the version that serves, ``previous`` at the last other one, if there is one."""
    place, known = context.layout, release.load(context.layout)
    if known.serving is None:
        return
    others = [kept.digest for kept in known.previous if kept.digest != known.serving.digest]
    release.link(place.previous, others[0] if others else known.serving.digest)
    release.link(place.proven, known.serving.digest)


def clean(context: Context) -> None:
    """Remove the journal, then the copies beside it."""
    files.remove(context.layout.upgrade)
    shutil.rmtree(context.layout.upgrade.parent, ignore_errors=True)
