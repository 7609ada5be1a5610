"""The pods that only noderuntime knows, and what becomes of them when the kubelet uses the upstream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from noderuntime.agent import layout
from noderuntime.agent.switch import upstream as previous
from noderuntime.agent.switch import versions
from noderuntime.agent.switch.context import Context
from noderuntime.config import load
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient
from noderuntime.lifecycle.pods.canary import LABEL

_log = log.get(__name__)

_MAX_NAMES = 5


class PodsStillRunning(FailedPrecondition):
    """Pods of noderuntime's handlers still run on this node."""


async def sandboxes(context: Context) -> list[cri.PodSandbox]:
    """Return the daemon's sandboxes; starts the daemon if necessary. Empty if it never ran.

    A daemon that does not respond is an error (PodsStillRunning) only while monitors of containers run.
    """
    if not (context.layout.state / "ledger.db").exists():
        return []
    try:
        await context.systemd.start(layout.SERVICE)
        upstream = load(context.layout.config).upstream
        return await _own(context, context.layout.at(upstream.socket) if upstream else None)
    except NoderuntimeError as error:
        if running := monitors(context):
            raise PodsStillRunning(
                f"{len(running)} containers still run, and their pods cannot be listed: {error}"
            ) from error
        _log.warning("listing the daemon's sandboxes failed", error=error)
        return []


async def _own(context: Context, upstream: Path | None) -> list[cri.PodSandbox]:
    """Return the daemon's own sandboxes: those that it lists and its upstream does not list."""
    async with CriClient(context.layout.socket) as client:
        listed = await client.sandboxes()
        canaries = await client.sandboxes({LABEL: "true"})
    upstream_ids: set[str] = set()
    if upstream is not None:
        async with CriClient(upstream) as client:
            upstream_ids = {sandbox.id for sandbox in await client.sandboxes()}
    return [sandbox for sandbox in (*listed, *canaries) if sandbox.id not in upstream_ids]


async def running(context: Context) -> list[cri.PodSandbox]:
    """Return the sandboxes of pods that run and that the upstream does not know. See :func:`sandboxes`."""
    return [
        sandbox
        for sandbox in await sandboxes(context)
        if sandbox.state == cri.SANDBOX_READY and LABEL not in sandbox.labels
    ]


async def refuse_while_running(context: Context) -> None:
    """Raise PodsStillRunning, with names, if the daemon has pods that the upstream does not know."""
    if found := await running(context):
        raise PodsStillRunning(f"pods of noderuntime's handlers still run on this node: {_names(found)}")


async def fate(context: Context, endpoint: str) -> str:
    """Return what becomes of the pods that run when the kubelet uses the upstream. Empty if none runs.

    A kubelet starts each pod whose sandbox it does not see, and the upstream can if it has the handler.
    Raises PodsStillRunning if the pods are unknown.
    """
    found = await running(context)
    if not found:
        return ""
    try:
        known = await previous.handlers(previous.socket_of(context.layout, endpoint))
    except NoderuntimeError as error:
        _log.warning("the upstream did not report its handlers", error=error)
        known = frozenset(sandbox.runtime_handler for sandbox in found)
    twice = [sandbox for sandbox in found if sandbox.runtime_handler in known]
    unseen = [sandbox for sandbox in found if sandbox.runtime_handler not in known]
    parts = (
        f"{endpoint} may start a second time: {_names(twice)}" if twice else "",
        f"unseen by the kubelet, these run on: {_names(unseen)}" if unseen else "",
    )
    return "; ".join(filter(None, parts))


def _names(found: Sequence[cri.PodSandbox]) -> str:
    pods = [sandbox.metadata for sandbox in found[:_MAX_NAMES]]
    more = f" and {len(found) - _MAX_NAMES} more" if len(found) > _MAX_NAMES else ""
    return ", ".join(f"{pod.namespace}/{pod.name}" for pod in pods) + more


def monitors(context: Context) -> list[int]:
    """Return the PIDs of the bundle's conmon processes."""

    def is_monitor(pid: int) -> bool:
        content = files.read(context.layout.proc / str(pid) / "cmdline") or b""
        return content.split(b"\0", 1)[0].endswith(b"/conmon")

    return [pid for pid in versions.processes_using(context.layout, context.layout.opt) if is_monitor(pid)]
