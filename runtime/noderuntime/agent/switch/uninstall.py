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
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import pods, transaction
from noderuntime.agent.switch.context import Context, Step, walk
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.criclient import CriClient

_log = log.get(__name__)

_CGROUP = "/noderuntime"
"""The cgroup of canaries, which belong to no pod of the kubelet."""
_PINS = "noderuntime-*"
"""The names of the daemon's network namespaces in /run/netns."""


async def uninstall(context: Context) -> None:
    """Uninstall noderuntime. Raises PodsStillRunning, with their names, before anything is changed."""
    await walk(context, STEPS, None)


async def _refuse(context: Context, _: None) -> None:
    await pods.refuse_while_running(context)


async def _revert(context: Context, _: None) -> None:
    if journal := records.load_journal(context.layout.journal):
        await transaction.roll_back(context, journal)


async def _remove_sandboxes(context: Context, _: None) -> None:
    """Remove dead sandboxes through the daemon, which cleans up their networks, mounts and snapshots.

    Processes of a sandbox that cannot be removed are killed later.
    """
    if not (sandboxes := await pods.sandboxes(context)):
        return
    async with CriClient(context.layout.socket) as client:
        for sandbox in sandboxes:
            try:
                await client.remove(sandbox.id)
            except NoderuntimeError as error:
                _log.warning("removing a dead sandbox failed", sandbox=sandbox.id, error=error)


async def _stop_daemon(context: Context, _: None) -> None:
    for unit in (layout.REVERT_TIMER, layout.SERVICE, layout.SLICE):
        await context.systemd.stop(unit)
    await context.systemd.disable(layout.SERVICE, layout.SWITCH, layout.RESUME)
    for pid in pods.monitors(context):
        if process := await context.host.process(pid, names="conmon"):
            _log.warning("killing a leftover monitor", pid=pid)
            await context.host.kill_tree(process)
    for pid in await context.host.cgroup_pids(_CGROUP):
        if process := await context.host.process(pid):
            await context.host.signal(process, signal.SIGKILL, cgroup=_CGROUP)
            await context.host.wait(process, timeout=5)


async def _remove_leftovers(context: Context, _: None) -> None:
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


async def _remove_units(context: Context, _: None) -> None:
    place = context.layout
    for unit in layout.UNITS:
        files.remove(place.units / unit)
    with contextlib.suppress(OSError):
        (place.units / layout.FALLBACK_DROP_IN).parent.rmdir()
    with contextlib.suppress(NoderuntimeError):
        await context.systemd.reload()


async def _remove_files(context: Context, _: None) -> None:
    place = context.layout
    for directory in (place.run, place.state, place.etc):
        await context.host.remove_tree(directory)
    _log.info("noderuntime was removed from this node")
    # Python and loaded libraries stay mapped, but no module can be imported after this.
    shutil.rmtree(place.opt, ignore_errors=True)


STEPS: tuple[Step[None], ...] = (
    _refuse, _revert, _remove_sandboxes, _stop_daemon, _remove_leftovers, _remove_units, _remove_files,
)  # fmt: skip
