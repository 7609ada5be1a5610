"""``noderuntime switch revert``: restore the kubelet's previous runtime from any state of the switch.

By hand, a revert is refused while pods run that the upstream does not know, unless it is forced.
With ``--expired``, which the timer and a killed switch run, only what is incomplete is rolled back: its
kubelet is not proven on noderuntime, so the alternative is a node without a kubelet.
"""

from __future__ import annotations

from noderuntime.agent import desired, layout
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import pods, transaction, upgrade
from noderuntime.agent.switch import run as apply
from noderuntime.agent.switch.context import Context, locked
from noderuntime.agent.switch.journal import Journal
from noderuntime.core import log

_log = log.get(__name__)


async def revert(context: Context, *, expired: bool, force: bool = False) -> str:
    """Restore the previous settings and return one line that describes the outcome.

    Raises PodsStillRunning by hand and without ``force``, before anything is changed.
    """
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
        if expired:
            return await _revert(context, journal, "it did not complete in time; ")
        await _check_pods(context, journal, force=force)
        return await _revert(context, journal, "by hand; ")


async def _check_pods(context: Context, journal: Journal, *, force: bool) -> None:
    """Refuse a revert while pods run, or log what a forced one does to them."""
    try:
        fate = await pods.fate(context, journal.upstream)
    except pods.PodsStillRunning as error:
        fate = f"{error}; {journal.upstream} may start their pods a second time"
    if fate and not force:
        raise pods.PodsStillRunning(
            f"pods of noderuntime's handlers still run on this node: drain it first; with --force, {fate}"
        )
    if fate:
        _log.warning("reverting the kubelet while pods run", consequence=fate)


async def _revert(context: Context, journal: Journal, cause: str) -> str:
    after = await transaction.roll_back(context, journal)
    outcome = f"the kubelet uses {journal.upstream} again{after}"
    revision = desired.load_if_valid(context.layout.switch_config).revision
    apply.record_failure(context, revision, "SwitchReverted", f"the switch was reverted: {cause}{outcome}")
    return outcome


def _is_incomplete(context: Context) -> bool:
    journal = records.load_journal(context.layout.journal)
    return context.layout.upgrade.exists() or (journal is not None and journal.phase != "Switched")
