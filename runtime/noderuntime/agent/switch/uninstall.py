"""``noderuntime switch uninstall``: revert the kubelet and remove noderuntime from the node.

The order of the steps lets an interrupted uninstallation be run again: checks that can refuse come
first, and the files that this program needs (its Python, its unit) are removed last.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path

from noderuntime.agent import layout
from noderuntime.agent.switch import daemon, transaction, versions
from noderuntime.agent.switch import journal as records
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
_CGROUP = "/noderuntime"
"""The cgroup of canaries, which belong to no pod of the kubelet."""
_PINS = "noderuntime-*"
"""The names of the daemon's network namespaces in /run/netns."""


class PodsStillRunning(FailedPrecondition):
    """Pods of noderuntime's handlers still run on this node."""


async def uninstall(context: Context) -> None:
    """Uninstall noderuntime. Raises PodsStillRunning, with their names, before anything is changed."""
    await refuse_while_pods_run(context)
    journal = records.load_journal(context.layout.journal)
    if journal:
        await transaction.roll_back(context, journal)
    await _remove_sandboxes(context, await _sandboxes(context))
    await _stop_daemon(context)
    await _remove_leftovers(context)
    await _remove_files(context)


async def _sandboxes(context: Context) -> list[cri.PodSandbox]:
    """Return the daemon's sandboxes; starts the daemon if necessary. Empty if it never ran.

    A daemon that does not respond blocks the removal only while monitors of containers are running.
    """
    if not (context.layout.state / "ledger.db").exists():
        return []
    try:
        await context.systemd.start(layout.SERVICE)
        upstream = load(context.layout.config).upstream
        return await daemon.own_sandboxes(context, context.layout.at(upstream.socket) if upstream else None)
    except NoderuntimeError as error:
        if running := monitors(context):
            raise PodsStillRunning(
                f"{len(running)} containers still run, and the daemon failed: {error}"
            ) from error
        _log.warning("listing the daemon's sandboxes failed", error=error)
        return []


async def refuse_while_pods_run(context: Context) -> None:
    """Raise PodsStillRunning, with names, if the daemon has pods that the upstream runtime does not know."""
    running = [
        sandbox
        for sandbox in await _sandboxes(context)
        if sandbox.state == cri.SANDBOX_READY and LABEL not in sandbox.labels
    ]
    if running:
        pods = [sandbox.metadata for sandbox in running[:_MAX_NAMES]]
        names = ", ".join(f"{pod.namespace}/{pod.name}" for pod in pods)
        more = f" and {len(running) - _MAX_NAMES} more" if len(running) > _MAX_NAMES else ""
        raise PodsStillRunning(f"pods of noderuntime's handlers still run on this node: {names}{more}")


async def _remove_sandboxes(context: Context, sandboxes: list[cri.PodSandbox]) -> None:
    """Remove dead sandboxes through the daemon, which cleans up their networks, mounts and snapshots.

    Processes of a sandbox that cannot be removed are killed later.
    """
    if not sandboxes:
        return
    async with CriClient(context.layout.socket) as client:
        for sandbox in sandboxes:
            try:
                await client.remove(sandbox.id)
            except NoderuntimeError as error:
                _log.warning("removing a dead sandbox failed", sandbox=sandbox.id, error=error)


async def _stop_daemon(context: Context) -> None:
    for unit in (layout.REVERT_TIMER, layout.SERVICE, layout.SLICE):
        await context.systemd.stop(unit)
    await context.systemd.disable(layout.SERVICE, layout.SWITCH, layout.RESUME)
    for pid in monitors(context):
        if process := await context.host.process(pid, names="conmon"):
            _log.warning("killing a leftover monitor", pid=pid)
            await context.host.kill_tree(process)
    for pid in await context.host.cgroup_pids(_CGROUP):
        if process := await context.host.process(pid):
            await context.host.signal(process, signal.SIGKILL, cgroup=_CGROUP)
            await context.host.wait(process, timeout=5)


def monitors(context: Context) -> list[int]:
    """Return the PIDs of the bundle's conmon processes."""

    def is_monitor(pid: int) -> bool:
        content = files.read(context.layout.proc / str(pid) / "cmdline") or b""
        return content.split(b"\0", 1)[0].endswith(b"/conmon")

    return [pid for pid in versions.processes_using(context.layout, context.layout.opt) if is_monitor(pid)]


async def _remove_leftovers(context: Context) -> None:
    """Remove mounts, pinned namespaces and cgroups that a dead pod may have left."""
    mountinfo = (files.read(context.layout.proc / "self/mountinfo") or b"").decode(errors="replace")
    points = [Path(line.split()[4].replace("\\040", " ")) for line in mountinfo.splitlines()]
    leftovers = [point for point in points if _is_below_own_directory(context, point)]
    for point in sorted(leftovers, reverse=True):
        await context.host.unmount(point)
    pins = context.layout.at("/run/netns")
    await context.host.unpin_namespaces(sorted(pins.glob(_PINS)) if pins.is_dir() else [])
    await context.host.remove_cgroup(_CGROUP)


def _is_below_own_directory(context: Context, point: Path) -> bool:
    return any(point.is_relative_to(directory) for directory in (context.layout.run, context.layout.state))


async def _remove_files(context: Context) -> None:
    place = context.layout
    for unit in layout.UNITS:
        files.remove(place.units / unit)
    with contextlib.suppress(OSError):
        (place.units / layout.FALLBACK_DROP_IN).parent.rmdir()
    with contextlib.suppress(NoderuntimeError):
        await context.systemd.reload()
    for directory in (place.run, place.state, place.etc):
        await context.host.remove_tree(directory)
    _log.info("noderuntime was removed from this node")
    # Python and loaded libraries stay mapped, but no module can be imported after this.
    shutil.rmtree(place.opt, ignore_errors=True)
