"""The transaction that changes the kubelet's files, and its rollback.

    (no journal) ──begin──► Switching ──commit──► Switched
         ▲                      │                    │
         └───── roll_back ◄─────┴──── Reverting ◄────┘

Every transition can be interrupted: the journal is on disk and the timer is armed before the
first file changes, and each step is idempotent.
"""

from __future__ import annotations

from pathlib import Path

from noderuntime.agent import layout
from noderuntime.agent.switch import health
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch.context import Context
from noderuntime.agent.switch.journal import Journal, JournalFile
from noderuntime.agent.switch.plan import Edit, KubeletFacts, Plan, undo
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError

_log = log.get(__name__)

_ROLLBACK_SECONDS = 90.0


class Reverted(FailedPrecondition):
    """The switch failed and was rolled back."""


async def switch(context: Context, facts: KubeletFacts, plan: Plan, upstream: str, timeout: int) -> Journal:
    """Change the files, restart the kubelet, and commit if it is healthy within ``timeout`` seconds.

    Otherwise roll back and raise Reverted with the cause.
    """
    journal = _begin(context, facts, plan, upstream, timeout)
    await context.systemd.restart(layout.REVERT_TIMER)
    _log.info("switching the kubelet to noderuntime", configured_by=plan.configured_by)
    try:
        await _change(context, facts.unit, plan, timeout)
    except NoderuntimeError as error:
        return await commit_or_roll_back(context, journal, str(error))
    return await commit_or_roll_back(context, journal, await wait_until_switched(context, journal))


async def wait_until_switched(context: Context, journal: Journal) -> str | None:
    """Return None once the kubelet is healthy on noderuntime, or the problem at the deadline."""
    problem = await health.wait_until_healthy(
        context, journal.unit, journal.healthz_port, on_noderuntime=True, seconds=journal.timeout_seconds
    )
    return f"{problem} {journal.timeout_seconds} s after the switch" if problem else None


async def commit_or_roll_back(context: Context, journal: Journal, problem: str | None) -> Journal:
    """Commit if there is no problem, else roll back and raise Reverted with the problem."""
    if problem:
        after = await roll_back(context, journal)
        raise Reverted(f"the switch was rolled back{after}: {problem}")
    committed = journal.model_copy(update={"phase": "Switched"})
    records.save(context.layout.journal, committed)
    await context.systemd.stop(layout.REVERT_TIMER)
    return committed


async def roll_back(context: Context, journal: Journal) -> str:
    """Restore the kubelet's previous endpoint. Return ``, but PROBLEM`` if it is not healthy then, or "".

    Files that were not changed since the switch get their exact old content.
    """
    _log.warning("rolling back the kubelet's settings", upstream=journal.upstream)
    records.save(context.layout.journal, journal.model_copy(update={"phase": "Reverting"}))
    for entry in journal.files:
        _roll_back_file(context, entry, journal.upstream)
    await context.systemd.reload()
    await context.systemd.restart(journal.unit)
    problem = await health.wait_until_healthy(
        context, journal.unit, journal.healthz_port, on_noderuntime=False, seconds=_ROLLBACK_SECONDS
    )
    files.remove(context.layout.journal)
    await context.systemd.stop(layout.REVERT_TIMER)
    return f", but {problem}" if problem else ""


def is_written(context: Context, journal: Journal) -> bool:
    """Return whether all files of the journal have the content that the switch wrote."""
    return all(_read(context, entry.path) == entry.after for entry in journal.files)


async def _change(context: Context, unit: str, plan: Plan, timeout: int) -> None:
    for edit in plan.edits:
        _write(context, edit.path, edit.after)
    if plan.reload:
        await context.systemd.reload()
    await context.systemd.restart(unit, timeout=timeout)


def _begin(context: Context, facts: KubeletFacts, plan: Plan, upstream: str, timeout: int) -> Journal:
    """Save the journal and return it. Entries of an earlier switch are kept for files that stay switched."""
    earlier = records.load_journal(context.layout.journal)
    kept = {entry.path: entry for entry in earlier.files} if earlier else {}
    changed = {edit.path: _entry(edit, kept.get(edit.path)) for edit in plan.edits}
    journal = Journal(
        phase="Switching", unit=facts.unit, configured_by=plan.configured_by, upstream=upstream,
        healthz_port=facts.healthz_port, timeout_seconds=timeout, files=tuple({**kept, **changed}.values()),
    )  # fmt: skip
    records.save(context.layout.journal, journal)
    return journal


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
