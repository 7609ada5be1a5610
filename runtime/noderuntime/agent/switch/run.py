"""``noderuntime switch apply`` and ``resume``: bring the node to the state that ``switch.toml`` describes."""

from __future__ import annotations

from pathlib import Path

from noderuntime.agent import desired, layout
from noderuntime.agent.switch import daemon, facts, health, pods, transaction, uninstall, upgrade, versions
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import upstream as previous
from noderuntime.agent.switch.context import Context, locked
from noderuntime.agent.switch.journal import Journal, Result, now
from noderuntime.agent.switch.plan import DEFAULT_ENDPOINT, KubeletFacts, plan
from noderuntime.agent.switch.release import Failure
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError, Unimplemented

_log = log.get(__name__)


class NotUpgraded(FailedPrecondition):
    """The staged release does not serve; the previous one does."""

    def __init__(self, failure: Failure) -> None:
        self.reason = failure.reason
        super().__init__(failure.message)


async def apply(context: Context) -> Result | None:
    """Apply the desired state, save the result and return it; None after an uninstallation.

    First completes or rolls back what an earlier run left incomplete. Raises NoderuntimeError
    after the failure has been saved.
    """
    async with locked(context):
        config = desired.load(context.layout.switch_config)
        try:
            await resume(context)
            if config.state == "Removed":
                await uninstall.uninstall(context)
                return None
            result, failure = await _install(context, config)
            if failure:
                raise NotUpgraded(failure)
        except NoderuntimeError as error:
            record_failure(context, config.revision, _reason(error), str(error))
            raise
        records.save(context.layout.result, result)
        versions.collect_garbage(context.layout)
        return result


async def resume(context: Context) -> None:
    """Complete what was interrupted, an upgrade or a switch, if it proves healthy, else roll it back."""
    await upgrade.resume(context)
    journal = records.load_journal(context.layout.journal)
    if journal is None or journal.phase == "Switched":
        return
    _log.warning("an earlier switch was interrupted", phase=journal.phase)
    if journal.phase == "Switching" and transaction.is_written(context, journal):
        await transaction.complete(context, journal)
    else:
        await transaction.roll_back(context, journal)


async def _install(context: Context, config: desired.SwitchConfig) -> tuple[Result, Failure | None]:
    """Install the staged release, and connect the kubelet to the release that serves."""
    if config.mode == "Replace":
        raise Unimplemented("kubelet.mode Replace is not supported yet: set Delegate or Manual")
    journal = records.load_journal(context.layout.journal)
    observed = await facts.observe(context.layout, context.systemd)
    upstream = _upstream(context, config, observed, journal)
    socket = previous.socket_of(context.layout, upstream)
    await previous.check(socket)
    changed = daemon.write_upstream(context, Path(upstream.removeprefix("unix://")))
    failure = await upgrade.bring(context, config.retry)
    await daemon.ensure_running(context, changed=changed)
    verification = await daemon.verify(context)
    upgrade.record(context)
    shared = {"shared_handlers": await previous.shared_handlers(socket, verification.handlers)}
    if config.mode == "Manual":
        if journal:
            await pods.refuse_while_running(context)
            await transaction.roll_back(context, journal)
        by_hand = not journal and observed.endpoint == layout.ENDPOINT
        result = _result(config, "Manual", verification, None, upstream)
        kubelet = {"kubelet": "Noderuntime"} if by_hand else {}
        return result.model_copy(update=kubelet | shared), failure
    journal = await _switch(context, config, observed, journal, upstream)
    return _result(config, "Switched", verification, journal, upstream).model_copy(update=shared), failure


async def _switch(
    context: Context,
    config: desired.SwitchConfig,
    observed: KubeletFacts,
    journal: Journal | None,
    upstream: str,
) -> Journal:
    """Switch the kubelet. If it is switched already, write nothing and restart nothing."""
    planned = plan(observed, layout.ENDPOINT)
    if not planned.edits and journal:
        return journal
    if not planned.edits:
        pid = await context.systemd.main_pid(observed.unit)
        if await health.check(context.layout, pid, observed.healthz_port, on_noderuntime=True) is None:
            # The kubelet was connected to noderuntime by hand; a revert will connect it to the upstream.
            return _adopt(context, config, observed, upstream)
    return await transaction.switch(context, observed, planned, upstream, config.timeout_seconds)


def _adopt(context: Context, config: desired.SwitchConfig, observed: KubeletFacts, upstream: str) -> Journal:
    back = plan(observed, upstream)
    journal = Journal(
        phase="Switched", unit=observed.unit, configured_by=back.configured_by, upstream=upstream,
        healthz_port=observed.healthz_port, timeout_seconds=config.timeout_seconds,
        files=tuple(
            records.JournalFile(path=edit.path, before=edit.after, after=edit.before) for edit in back.edits
        ),
    )  # fmt: skip
    records.save(context.layout.journal, journal)
    return journal


def _upstream(
    context: Context, config: desired.SwitchConfig, observed: KubeletFacts, journal: Journal | None
) -> str:
    """Return the endpoint of the node's previous runtime, as ``unix://…``."""
    if config.upstream_socket:
        return f"unix://{config.upstream_socket}"
    endpoint = observed.endpoint if observed.endpoint.startswith("unix://") else f"unix://{observed.endpoint}"
    if endpoint != layout.ENDPOINT:
        return endpoint
    if journal:
        return journal.upstream
    if context.layout.at(DEFAULT_ENDPOINT.removeprefix("unix://")).is_socket():
        return DEFAULT_ENDPOINT
    raise FailedPrecondition(
        "the kubelet already uses noderuntime and its previous runtime is unknown: set upstreamSocket"
    )


def _result(
    config: desired.SwitchConfig,
    outcome: str,
    verification: daemon.Verification,
    journal: Journal | None,
    upstream: str,
) -> Result:
    broken = "; ".join(f"{finding.handler}: {finding.message}" for finding in verification.broken)
    return Result.model_validate(
        {
            "revision": config.revision,
            "outcome": outcome,
            "reason": "KubeletOnNoderuntime" if journal else "KubeletLeftAlone",
            "message": f"broken handlers: {broken}"[:500] if broken else "",
            "kubelet": "Noderuntime" if journal else "Upstream",
            "configured_by": journal.configured_by if journal else None,
            "upstream_socket": upstream.removeprefix("unix://"),
            "finished": now(),
        }
    )


def record_failure(context: Context, revision: str, reason: str, message: str) -> None:
    """Save a failed result with the count of consecutive failures. A failure to save is only logged."""
    previous = records.load_result(context.layout.result)
    journal = records.load_journal(context.layout.journal)
    result = Result(
        revision=revision, outcome="Failed", reason=reason, message=message[:500], finished=now(),
        kubelet="Noderuntime" if journal else "Upstream",
        configured_by=journal.configured_by if journal else None,
        upstream_socket=journal.upstream.removeprefix("unix://") if journal else None,
        failures=previous.failures + 1 if previous and previous.revision == revision else 1,
        shared_handlers=previous.shared_handlers if previous else (),
    )  # fmt: skip
    try:
        records.save(context.layout.result, result)
    except NoderuntimeError as error:
        _log.error("saving the result failed", error=error)


def _reason(error: NoderuntimeError) -> str:
    if isinstance(error, NotUpgraded):
        return error.reason
    if isinstance(error, pods.PodsStillRunning):
        return "PodsStillRunning"
    if isinstance(error, Unimplemented):
        return "ModeNotOffered"
    return "SwitchReverted" if isinstance(error, transaction.Reverted) else "SwitchFailed"
