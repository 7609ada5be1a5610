"""``noderuntime switch revert``: restore the kubelet's previous runtime from any state of the switch."""

from __future__ import annotations

from noderuntime.agent import desired
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import run as apply
from noderuntime.agent.switch import transaction
from noderuntime.agent.switch.context import Context, locked


async def revert(context: Context, *, expired: bool) -> str:
    """Restore the previous settings and return one line that describes the outcome.

    With ``expired`` (the timer's call), only an incomplete switch is reverted.
    """
    async with locked(context):
        journal = records.load_journal(context.layout.journal)
        if journal is None:
            return "the kubelet already has its previous settings"
        if expired and journal.phase == "Switched":
            return "the switch completed in time"
        after = await transaction.roll_back(context, journal)
        outcome = f"the kubelet uses {journal.upstream} again{after}"
        cause = "the switch did not complete in time; " if expired else "reverted by hand; "
        revision = desired.load(context.layout.switch_config).revision
        apply.record_failure(context, revision, "SwitchReverted", cause + outcome)
        return outcome
