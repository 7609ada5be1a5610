"""The transaction that changes the kubelet's files, and its rollback.

    (no journal) ──begin──► Switching ──commit──► Switched
         ▲                      │                    │
         └───── roll_back ◄─────┴──── Reverting ◄────┘

Every transition can be interrupted: the journal is on disk and the timer is armed before the
first file changes, and each step is idempotent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from noderuntime.agent import layout
from noderuntime.agent.switch import health, timer
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch.context import Context, Step, walk
from noderuntime.agent.switch.journal import Journal, JournalFile
from noderuntime.agent.switch.plan import Edit, KubeletFacts, Plan, undo
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError

_log = log.get(__name__)

_ROLLBACK_SECONDS = 90.0


class Reverted(FailedPrecondition):
    """The switch failed and was rolled back."""


@dataclass(slots=True)
class Change:
    """A switch under way, or its rollback."""

    journal: Journal
    plan: Plan
    problem: str | None = None


async def switch(context: Context, facts: KubeletFacts, plan: Plan, upstream: str, timeout: int) -> Journal:
    """Change the files, restart the kubelet, and commit if it is healthy within ``timeout`` seconds.

    Otherwise roll back and raise Reverted with the cause.
    """
    change = Change(_journal(context, facts, plan, upstream, timeout), plan)
    _log.info("switching the kubelet to noderuntime", configured_by=plan.configured_by)
    await walk(context, _BEGIN, change)
    return await _take(context, _CHANGE, change)


async def complete(context: Context, journal: Journal) -> Journal:
    """Commit an interrupted switch, whose files are written, if the kubelet is healthy, else roll back.

    A kubelet that is not connected to noderuntime may not have been restarted.
    """
    pid = await context.systemd.main_pid(journal.unit)
    connected = await FILES.run(health.is_connected, context.layout, pid)
    steps = (_await_kubelet,) if connected else (_reload, _restart_kubelet, _await_kubelet)
    return await _take(context, steps, Change(journal, _WRITTEN))


async def _take(context: Context, steps: Iterable[Step[Change]], change: Change) -> Journal:
    """Take these steps. Commit if there is no problem, else roll back and raise Reverted with the problem."""
    try:
        await walk(context, steps, change)
    except NoderuntimeError as error:
        change.problem = str(error)
    if change.problem:
        after = await roll_back(context, change.journal)
        raise Reverted(f"the switch was rolled back{after}: {change.problem}")
    change.journal = change.journal.model_copy(update={"phase": "Switched"})
    await walk(context, _COMMIT, change)
    return change.journal


async def roll_back(context: Context, journal: Journal) -> str:
    """Restore the kubelet's previous endpoint. Return ``, but PROBLEM`` if it is not healthy then, or "".

    Files that were not changed since the switch get their exact old content.
    """
    _log.warning("rolling back the kubelet's settings", upstream=journal.upstream)
    change = Change(journal.model_copy(update={"phase": "Reverting"}), _NO_PLAN)
    try:
        await walk(context, (_save,), change)
    except NoderuntimeError as error:  # a full disk must not prevent the restoration
        _log.error("saving the journal failed", error=error)
    await walk(context, _RESTORE, change)
    return f", but {change.problem}" if change.problem else ""


async def _save(context: Context, change: Change) -> None:
    records.save(context.layout.journal, change.journal)


async def _arm(context: Context, change: Change) -> None:
    await timer.arm(context, change.journal.timeout_seconds)


async def _write_files(context: Context, change: Change) -> None:
    for edit in change.plan.edits:
        context.on_step(f"write {edit.path}")
        _write(context, edit.path, edit.after)


async def _reload(context: Context, change: Change) -> None:
    if change.plan.reload:
        await context.systemd.reload()


async def _restart_kubelet(context: Context, change: Change) -> None:
    await context.systemd.restart(change.journal.unit, timeout=change.journal.timeout_seconds)


async def _await_kubelet(context: Context, change: Change) -> None:
    journal = change.journal
    problem = await health.wait_until_healthy(
        context, journal.unit, journal.healthz_port, on_noderuntime=True, seconds=journal.timeout_seconds
    )
    change.problem = f"{problem} {journal.timeout_seconds} s after the switch" if problem else None


async def _disarm(context: Context, change: Change) -> None:
    await timer.disarm(context)


async def _restore_files(context: Context, change: Change) -> None:
    for entry in change.journal.files:
        context.on_step(f"restore {entry.path}")
        _roll_back_file(context, entry, change.journal.upstream)


async def _restart_on_upstream(context: Context, change: Change) -> None:
    await context.systemd.reload()
    await context.systemd.restart(change.journal.unit)
    change.problem = await health.wait_until_healthy(
        context,
        change.journal.unit,
        change.journal.healthz_port,
        on_noderuntime=False,
        seconds=_ROLLBACK_SECONDS,
    )


async def _forget(context: Context, change: Change) -> None:
    files.remove(context.layout.journal)


_NO_PLAN = Plan((), "FlagsFile", reload=False)
_WRITTEN = Plan((), "FlagsFile", reload=True)
"""Of a switch whose files are written: systemd may not have read them."""
_BEGIN: tuple[Step[Change], ...] = (_save, _arm)
_CHANGE: tuple[Step[Change], ...] = (_write_files, _reload, _restart_kubelet, _await_kubelet)
_COMMIT: tuple[Step[Change], ...] = (_save, _disarm)
_RESTORE: tuple[Step[Change], ...] = (_restore_files, _restart_on_upstream, _forget, _disarm)
SWITCH_STEPS = (*_BEGIN, *_CHANGE, *_COMMIT)
REVERT_STEPS = (_save, *_RESTORE)


def is_written(context: Context, journal: Journal) -> bool:
    """Return whether all files of the journal have the content that the switch wrote."""
    return all(_read(context, entry.path) == entry.after for entry in journal.files)


def _journal(context: Context, facts: KubeletFacts, plan: Plan, upstream: str, timeout: int) -> Journal:
    """Return the journal. Entries of an earlier switch are kept for files that stay switched."""
    earlier = records.load_journal(context.layout.journal)
    kept = {entry.path: entry for entry in earlier.files} if earlier else {}
    changed = {edit.path: _entry(edit, kept.get(edit.path)) for edit in plan.edits}
    return Journal(
        phase="Switching", unit=facts.unit, configured_by=plan.configured_by, upstream=upstream,
        healthz_port=facts.healthz_port, timeout_seconds=timeout, files=tuple({**kept, **changed}.values()),
    )  # fmt: skip


def _entry(edit: Edit, earlier: JournalFile | None) -> JournalFile:
    """Return the journal's entry. It keeps the original content if the current one is the switch's own."""
    before = earlier.before if earlier and edit.before == earlier.after else edit.before
    return JournalFile(path=edit.path, before=before, after=edit.after)


def _roll_back_file(context: Context, entry: JournalFile, upstream: str) -> None:
    current = _read(context, entry.path)
    restored = undo(entry.edit(), current, layout.ENDPOINT, upstream)
    if restored != current:
        _write(context, entry.path, restored)


def _read(context: Context, path: Path) -> str | None:
    content = files.read(context.layout.at(path))
    return None if content is None else content.decode(errors="surrogateescape")


def _write(context: Context, path: Path, text: str | None) -> None:
    target = context.layout.at(path)
    if text is not None:
        files.write(target, text.encode(errors="surrogateescape"))
        return
    files.remove(target)
    if target.parent.name.endswith(".service.d") and not any(target.parent.iterdir()):
        target.parent.rmdir()
