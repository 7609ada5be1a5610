"""``noderuntime switch revert``: the kubelet back on what it had, whatever the state of the switch."""

from __future__ import annotations

from noderuntime.agent import order
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import run as apply
from noderuntime.agent.switch import transaction
from noderuntime.agent.switch.context import Context, locked


async def revert(context: Context, *, expired: bool) -> str:
    """Put the old settings back; return one line that says what was done.

    With ``expired`` (the timer's call) only a switch that is not finished is undone.
    """
    async with locked(context):
        journal = records.load_journal(context.layout.journal)
        if journal is None:
            return "the kubelet has its own settings already"
        if expired and journal.phase == "Switched":
            return "the switch was finished in time"
        after = await transaction.put_back(context, journal)
        said = f"the kubelet is back on {journal.upstream}{after}"
        reason = "the switch did not end in time; " if expired else "reverted by hand; "
        revision = order.load(context.layout.order).revision
        apply.note_failure(context, revision, "SwitchReverted", reason + said)
        return said
