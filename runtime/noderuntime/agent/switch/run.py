"""``noderuntime switch apply``: the node as ``switch.toml`` orders it, whatever it is like now."""

from __future__ import annotations

from pathlib import Path

from noderuntime.agent import layout, order
from noderuntime.agent.switch import daemon, facts, health, transaction, uninstall, versions
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch.context import Context, locked
from noderuntime.agent.switch.journal import Journal, Result, now
from noderuntime.agent.switch.plan import DEFAULT_ENDPOINT, KubeletFacts, plan
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError, Unimplemented

_log = log.get(__name__)


async def apply(context: Context) -> Result | None:
    """Carry out the order; the result is on disk, and returned: None when nothing of us is left.

    What an earlier run left unfinished is finished or undone first. Raises what went
    wrong, after it has been written down.
    """
    async with locked(context):
        wanted = order.load(context.layout.order)
        try:
            await finish(context)
            if wanted.state == "Removed":
                await uninstall.uninstall(context)
                return None
            result = await _install(context, wanted)
        except NoderuntimeError as error:
            note_failure(context, wanted.revision, _reason(error), str(error))
            raise
        records.save(context.layout.result, result)
        versions.collect(context.layout)
        return result


async def finish(context: Context) -> None:
    """Finish what a switch that died (or the machine that rebooted) left: forward if the kubelet is well."""
    journal = records.load_journal(context.layout.journal)
    if journal is None or journal.phase == "Switched":
        return
    _log.warning("an earlier switch was cut off", phase=journal.phase)
    if journal.phase == "Switching" and transaction.is_written(context, journal):
        await transaction.settle(context, journal, await transaction.wait_until_ours(context, journal))
    else:
        await transaction.put_back(context, journal)


async def _install(context: Context, wanted: order.Order) -> Result:
    if wanted.mode == "Replace":
        raise Unimplemented("kubelet.mode Replace is not offered yet: choose Delegate or Manual")
    journal = records.load_journal(context.layout.journal)
    seen = await facts.observe(context.layout, context.systemd)
    upstream = _upstream(context, wanted, seen, journal)
    await daemon.check_upstream(context.layout.at(upstream.removeprefix("unix://")))
    await daemon.serve(context, Path(upstream.removeprefix("unix://")))
    proof = await daemon.prove(context)
    if wanted.mode == "Manual":
        if journal:
            await transaction.put_back(context, journal)
        return _result(wanted, "Manual", proof, None, upstream)
    journal = await _switch(context, wanted, seen, journal, upstream)
    return _result(wanted, "Switched", proof, journal, upstream)


async def _switch(
    context: Context, wanted: order.Order, seen: KubeletFacts, journal: Journal | None, upstream: str
) -> Journal:
    """Switch the kubelet unless it is switched: then nothing is written and nothing restarted."""
    todo = plan(seen, layout.ENDPOINT)
    if not todo.edits and journal:
        return journal
    if not todo.edits:
        pid = await context.systemd.main_pid(seen.unit)
        if await health.look(context.layout, pid, seen.healthz_port, ours=True) is None:
            # Somebody configured the kubelet for us, and there is no way back to note but the upstream.
            return _adopted(context, wanted, seen, upstream)
    return await transaction.switch(context, seen, todo, upstream, wanted.timeout_seconds)


def _adopted(context: Context, wanted: order.Order, seen: KubeletFacts, upstream: str) -> Journal:
    back = plan(seen, upstream)
    journal = Journal(
        phase="Switched", unit=seen.unit, configured_by=back.configured_by, upstream=upstream,
        healthz_port=seen.healthz_port, timeout_seconds=wanted.timeout_seconds,
        files=tuple(
            records.JournalFile(path=edit.path, before=edit.after, after=edit.before) for edit in back.edits
        ),
    )  # fmt: skip
    records.save(context.layout.journal, journal)
    return journal


def _upstream(context: Context, wanted: order.Order, seen: KubeletFacts, journal: Journal | None) -> str:
    """Return the endpoint that the node had before us, as ``unix://…``."""
    if wanted.upstream_socket:
        return f"unix://{wanted.upstream_socket}"
    endpoint = seen.endpoint if seen.endpoint.startswith("unix://") else f"unix://{seen.endpoint}"
    if endpoint != layout.ENDPOINT:
        return endpoint
    if journal:
        return journal.upstream
    if context.layout.at(DEFAULT_ENDPOINT.removeprefix("unix://")).is_socket():
        return DEFAULT_ENDPOINT
    raise FailedPrecondition(
        "the kubelet is on our socket already and nothing tells what it had before: set upstreamSocket"
    )


def _result(
    wanted: order.Order, outcome: str, proof: daemon.Proof, journal: Journal | None, upstream: str
) -> Result:
    broken = "; ".join(f"{finding.handler}: {finding.trouble}" for finding in proof.broken)
    return Result.model_validate(
        {
            "revision": wanted.revision,
            "outcome": outcome,
            "reason": "KubeletOnNoderuntime" if journal else "KubeletLeftAlone",
            "message": f"broken handlers: {broken}"[:500] if broken else "",
            "kubelet": "Noderuntime" if journal else "Upstream",
            "configured_by": journal.configured_by if journal else None,
            "upstream_socket": upstream.removeprefix("unix://"),
            "finished": now(),
        }
    )


def note_failure(context: Context, revision: str, reason: str, message: str) -> None:
    """Write down why it failed and how often in a row; a disk that takes no more is only logged."""
    known = records.load_result(context.layout.result)
    journal = records.load_journal(context.layout.journal)
    result = Result(
        revision=revision, outcome="Failed", reason=reason, message=message[:500], finished=now(),
        kubelet="Noderuntime" if journal else "Upstream",
        configured_by=journal.configured_by if journal else None,
        upstream_socket=journal.upstream.removeprefix("unix://") if journal else None,
        failures=known.failures + 1 if known and known.revision == revision else 1,
    )  # fmt: skip
    try:
        records.save(context.layout.result, result)
    except NoderuntimeError as error:
        _log.error("the result could not be written", error=error)


def _reason(error: NoderuntimeError) -> str:
    if isinstance(error, uninstall.PodsStillRunning):
        return "PodsStillRunning"
    if isinstance(error, Unimplemented):
        return "ModeNotOffered"
    return "SwitchReverted" if isinstance(error, transaction.Reverted) else "SwitchFailed"
