"""Changing the kubelet's files and putting them back.

    (no journal) ──begin──► Switching ──commit──► Switched
         ▲                      │                    │
         └────── put_back ◄─────┴──── Reverting ◄────┘

Every arrow is safe to be cut off: the journal is on disk before the first file changes,
the timer is armed before that, and each step can be done again.
"""

from __future__ import annotations

from pathlib import Path

from noderuntime.agent import durable_files as files
from noderuntime.agent import layout
from noderuntime.agent.switch import health
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch.context import Context
from noderuntime.agent.switch.journal import Journal, JournalFile
from noderuntime.agent.switch.plan import Edit, KubeletFacts, Plan, undo
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError

_log = log.get(__name__)

_PATIENCE_AFTER_REVERT = 90.0


class Reverted(FailedPrecondition):
    """The switch failed and the kubelet has its old settings again."""


async def switch(context: Context, facts: KubeletFacts, plan: Plan, upstream: str, timeout: int) -> Journal:
    """Change the files, restart the kubelet, and commit when it is well again within timeout seconds.

    Otherwise everything is put back and Reverted says why.
    """
    journal = _begin(context, facts, plan, upstream, timeout)
    await context.systemd.restart(layout.REVERT_TIMER)
    _log.info("switching the kubelet to our socket", configured_by=plan.configured_by)
    try:
        await _change(context, facts.unit, plan, timeout)
    except NoderuntimeError as error:
        return await settle(context, journal, str(error))
    return await settle(context, journal, await wait_until_ours(context, journal))


async def wait_until_ours(context: Context, journal: Journal) -> str | None:
    """Return None once the kubelet is well on our socket, else what was still wrong at the deadline."""
    trouble = await health.wait_until_well(
        context, journal.unit, journal.healthz_port, ours=True, seconds=journal.timeout_seconds
    )
    return f"{trouble} within {journal.timeout_seconds} s of the switch" if trouble else None


async def settle(context: Context, journal: Journal, trouble: str | None) -> Journal:
    """Commit if there is no trouble; else go back and raise Reverted with it."""
    if trouble:
        after = await put_back(context, journal)
        raise Reverted(f"everything was put back{after}: {trouble}")
    committed = journal.model_copy(update={"phase": "Switched"})
    records.save(context.layout.journal, committed)
    await context.systemd.stop(layout.REVERT_TIMER)
    return committed


async def put_back(context: Context, journal: Journal) -> str:
    """Give the kubelet its old endpoint; return an empty string, or what is still wrong with it.

    Files that nobody touched since get the very bytes they had.
    """
    _log.warning("putting the kubelet's old settings back", upstream=journal.upstream)
    records.save(context.layout.journal, journal.model_copy(update={"phase": "Reverting"}))
    for entry in journal.files:
        _put_back_file(context, entry, journal.upstream)
    await context.systemd.reload()
    await context.systemd.restart(journal.unit)
    trouble = await health.wait_until_well(
        context, journal.unit, journal.healthz_port, ours=False, seconds=_PATIENCE_AFTER_REVERT
    )
    files.remove(context.layout.journal)
    await context.systemd.stop(layout.REVERT_TIMER)
    return f", but {trouble}" if trouble else ""


def is_written(context: Context, journal: Journal) -> bool:
    """Tell whether all files of the journal are as the switch wanted them."""
    return all(_read(context, entry.path) == entry.after for entry in journal.files)


async def _change(context: Context, unit: str, plan: Plan, timeout: int) -> None:
    for edit in plan.edits:
        _write(context, edit.path, edit.after)
    if plan.reload:
        await context.systemd.reload()
    await context.systemd.restart(unit, timeout=timeout)


def _begin(context: Context, facts: KubeletFacts, plan: Plan, upstream: str, timeout: int) -> Journal:
    """Write the journal; what an earlier switch noted of files that stay switched is kept."""
    known = records.load_journal(context.layout.journal)
    kept = {entry.path: entry for entry in known.files} if known else {}
    changed = {edit.path: _note(edit, kept.get(edit.path)) for edit in plan.edits}
    journal = Journal(
        phase="Switching", unit=facts.unit, configured_by=plan.configured_by, upstream=upstream,
        healthz_port=facts.healthz_port, timeout_seconds=timeout, files=tuple({**kept, **changed}.values()),
    )  # fmt: skip
    records.save(context.layout.journal, journal)
    return journal


def _note(edit: Edit, known: JournalFile | None) -> JournalFile:
    """Remember a file's first state when only our own writing differs from it."""
    before = known.before if known and edit.before == known.after else edit.before
    return JournalFile(path=edit.path, before=before, after=edit.after)


def _put_back_file(context: Context, entry: JournalFile, upstream: str) -> None:
    current = _read(context, entry.path)
    wanted = undo(entry.edit(), current, layout.ENDPOINT, upstream)
    if wanted != current:
        _write(context, entry.path, wanted)


def _read(context: Context, path: Path) -> str | None:
    content = files.read(context.layout.at(path))
    return None if content is None else content.decode(errors="surrogateescape")


def _write(context: Context, path: Path, text: str | None) -> None:
    here = context.layout.at(path)
    if text is not None:
        files.write(here, text.encode(errors="surrogateescape"))
        return
    files.remove(here)
    if here.parent.name.endswith(".service.d") and not any(here.parent.iterdir()):
        here.parent.rmdir()
