"""``noderuntime switch revert``: restore the kubelet's previous runtime from any state of the switch.

With ``--expired``, which the timer and a killed switch run, only what is incomplete is rolled back.
"""

from __future__ import annotations

from noderuntime.agent import desired, layout
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import run as apply
from noderuntime.agent.switch import transaction, upgrade
from noderuntime.agent.switch.context import Context, locked
from noderuntime.agent.switch.journal import Journal


async def revert(context: Context, *, expired: bool) -> str:
    """Restore the previous settings and return one line that describes the outcome."""
    if expired:
        if not _is_incomplete(context):
            return "the switch completed in time"
        # A switch that still runs at its deadline hangs.
        await context.systemd.stop(layout.SWITCH)
    async with locked(context):
        await upgrade.resume(context, expired=expired)
        journal = records.load_journal(context.layout.journal)
        if journal is None:
            return "the kubelet already has its previous settings"
        if expired and journal.phase == "Switched":
            return "the switch completed in time"
        return await _revert(context, journal, "it did not complete in time; " if expired else "by hand; ")


async def _revert(context: Context, journal: Journal, cause: str) -> str:
    after = await transaction.roll_back(context, journal)
    outcome = f"the kubelet uses {journal.upstream} again{after}"
    revision = desired.load(context.layout.switch_config).revision
    apply.record_failure(context, revision, "SwitchReverted", f"the switch was reverted: {cause}{outcome}")
    return outcome


def _is_incomplete(context: Context) -> bool:
    journal = records.load_journal(context.layout.journal)
    return context.layout.upgrade.exists() or (journal is not None and journal.phase != "Switched")
