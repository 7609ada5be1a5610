"""``noderuntime switch uninstall``: the kubelet back on its own runtime, and nothing of us left.

The order lets it be cut off anywhere and run again: what refuses comes first, what this
very program needs (its Python, its unit) comes last.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path

from noderuntime.agent import durable_files as files
from noderuntime.agent import layout
from noderuntime.agent.switch import daemon, transaction, versions
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch.context import Context
from noderuntime.config import load
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient
from noderuntime.lifecycle.pods.canary import LABEL

_log = log.get(__name__)

_NAMED = 5
_CGROUP = "/noderuntime"
"""Holds what belongs to no pod of the kubelet: canaries."""
_PINS = "noderuntime-*"
"""What the daemon calls its network namespaces in /run/netns."""


class PodsStillRunning(FailedPrecondition):
    """Pods of our handlers live on this node."""


async def uninstall(context: Context) -> None:
    """Take everything off the node. Raises PodsStillRunning, with their names, before anything is touched."""
    ours = await _sandboxes(context)
    _refuse_while_pods_live(ours)
    journal = records.load_journal(context.layout.journal)
    if journal:
        await transaction.put_back(context, journal)
    await _remove_sandboxes(context, await _sandboxes(context))
    await _stop_daemon(context)
    await _remove_leftovers(context)
    await _remove_files(context)


async def _sandboxes(context: Context) -> list[cri.PodSandbox]:
    """Ask the daemon, started once more if need be; none where it never ran.

    A daemon that cannot answer does not hold the removal back, unless monitors of containers live.
    """
    if not (context.layout.state / "ledger.db").exists():
        return []
    try:
        await context.systemd.start(layout.SERVICE)
        upstream = load(context.layout.config).upstream
        return await daemon.our_sandboxes(context, context.layout.at(upstream.socket) if upstream else None)
    except NoderuntimeError as error:
        if monitors := _monitors(context):
            raise PodsStillRunning(f"{len(monitors)} containers still run, and {error}") from error
        _log.warning("the daemon cannot say what is left", error=error)
        return []


def _refuse_while_pods_live(ours: list[cri.PodSandbox]) -> None:
    alive = [one for one in ours if one.state == cri.SANDBOX_READY and LABEL not in one.labels]
    if alive:
        names = ", ".join(f"{one.metadata.namespace}/{one.metadata.name}" for one in alive[:_NAMED])
        more = f" and {len(alive) - _NAMED} more" if len(alive) > _NAMED else ""
        raise PodsStillRunning(f"pods of our handlers still run on this node: {names}{more}")


async def _remove_sandboxes(context: Context, ours: list[cri.PodSandbox]) -> None:
    """Let the daemon clean up after dead pods: networks, mounts, snapshots.

    What it cannot remove is dead to the kubelet as well; it is ended by force later.
    """
    if not ours:
        return
    async with CriClient(context.layout.socket) as client:
        for sandbox in ours:
            try:
                await client.remove(sandbox.id)
            except NoderuntimeError as error:
                _log.warning("a dead sandbox will be ended by force", sandbox=sandbox.id, error=error)


async def _stop_daemon(context: Context) -> None:
    for unit in (layout.REVERT_TIMER, layout.SERVICE, layout.SLICE):
        await context.systemd.stop(unit)
    await context.systemd.disable(layout.SERVICE, layout.SWITCH)
    for pid in _monitors(context):
        if process := await context.host.process(pid):
            _log.warning("killing a monitor that was left over", pid=pid)
            await context.host.kill_tree(process)
    for pid in await context.host.cgroup_pids(_CGROUP):
        if process := await context.host.process(pid):
            await context.host.signal(process, signal.SIGKILL)
            await context.host.wait(process, timeout=5)


def _monitors(context: Context) -> list[int]:
    """Return the PIDs of the bundle's conmon."""

    def is_monitor(pid: int) -> bool:
        content = files.read(context.layout.proc / str(pid) / "cmdline") or b""
        return content.split(b"\0", 1)[0].endswith(b"/conmon")

    return [pid for pid in versions.users(context.layout, context.layout.opt) if is_monitor(pid)]


async def _remove_leftovers(context: Context) -> None:
    """Mounts, pinned namespaces and cgroups that a dead pod may have left."""
    mountinfo = (files.read(context.layout.proc / "self/mountinfo") or b"").decode(errors="replace")
    points = [Path(line.split()[4].replace("\\040", " ")) for line in mountinfo.splitlines()]
    ours = [point for point in points if _is_below_ours(context, point)]
    for point in sorted(ours, reverse=True):
        await context.host.unmount(point)
    pins = context.layout.at("/run/netns")
    await context.host.unpin_namespaces(sorted(pins.glob(_PINS)) if pins.is_dir() else [])
    await context.host.remove_cgroup(_CGROUP)


def _is_below_ours(context: Context, point: Path) -> bool:
    return any(point.is_relative_to(directory) for directory in (context.layout.run, context.layout.state))


async def _remove_files(context: Context) -> None:
    place = context.layout
    for unit in layout.UNITS:
        files.remove(place.units / unit)
    with contextlib.suppress(NoderuntimeError):
        await context.systemd.reload()
    for directory in (place.run, place.state, place.etc):
        await context.host.remove_tree(directory)
    _log.info("removed from this node")
    # Python and its libraries stay mapped; from here on nothing may be imported.
    shutil.rmtree(place.opt, ignore_errors=True)
