"""After a restart of the daemon, a ``kill -9``, or a reboot: the ledger against the world."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

from noderuntime.core import log
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import NoderuntimeError
from noderuntime.lifecycle import orphans
from noderuntime.lifecycle.containers.build import remove_unused_log
from noderuntime.lifecycle.containers.create import keep_undone as keep_undone_container
from noderuntime.lifecycle.containers.exits import settle
from noderuntime.lifecycle.containers.pod import cgroup_of, user_of
from noderuntime.lifecycle.containers.start import fail_start
from noderuntime.lifecycle.containers.stop import halt
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.log_context import bind_container, bind_sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods import release
from noderuntime.lifecycle.pods.root import needs_root, root_ended
from noderuntime.lifecycle.pods.run import keep_undone as keep_undone_sandbox
from noderuntime.lifecycle.pods.run import pins_of
from noderuntime.lifecycle.pods.stop import give_back
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.cgroup_names import monitor_cgroup

_log = log.get(__name__)

_AT_ONCE = 8
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

T = TypeVar("T")


def boot_id() -> str:
    """Return what the kernel calls this boot."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


async def recover(parts: Parts, boot: str) -> None:
    """Make the ledger true again, and the world agree with it. Runs before the first call is served.

    What it assumes:

    * The ledger's lock is held and nothing is served: only processes change meanwhile, by ending.
      Those that end later are told by the exit watcher, which starts with the files that lie there.
    * Whatever was made was an intent in the ledger first. An intent that never became visible was
      given to nobody, so it is undone; all undo steps take what was never made.
    * A process is ours if PID and start time are the recorded ones. A sandbox lives if its
      namespaces are still pinned: after a reboot, or in a new ``/run``, they are not, whatever
      the boot ID says (a node that is itself a container keeps it).
    * What an ended monitor had to say is in its exit file. Where there is none, nobody saw the
      end: exit code 255, reason Unknown. A container without its monitor has lost its output
      and its exit code, so it is ended.
    * An intent that cannot be undone becomes visible as something that has ended.
    * The daemon may die in here as well: every step can be done again.

    One object that resists is logged and left to the kubelet, which repeats its stop and remove.
    """
    began = time.monotonic()
    same_boot = await parts.ledger.meta("boot_id") == boot
    await _each("container", parts.ledger.containers, lambda c: _container(parts, c, same_boot))
    await _each("sandbox", parts.ledger.sandboxes, lambda s: _sandbox(parts, s, same_boot))
    await orphans.remove(parts)
    await parts.ledger.set_meta("boot_id", boot)
    _log.info(
        "recovered",
        sandboxes=len(parts.ledger.sandboxes),
        containers=len(parts.ledger.containers),
        same_boot=same_boot,
        ms=int((time.monotonic() - began) * 1000),
    )


async def _each(noun: str, records: Iterable[T], step: Callable[[T], Awaitable[None]]) -> None:
    """Take the step for every record, a few at a time; one that fails does not stop the others."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def guarded(record: T) -> None:
        async with limit:
            try:
                await step(record)
            except (NoderuntimeError, OSError) as error:
                _log.error("not recovered", kind=noun, id=getattr(record, "id", ""), error=error)

    await asyncio.gather(*(guarded(record) for record in records))


async def _container(parts: Parts, container: Container, same_boot: bool) -> None:
    bind_container(parts.ledger, container)
    sandbox = parts.ledger.sandboxes.find(container.sandbox_id)
    if sandbox is None:
        await parts.ledger.containers.drop(container)  # what it holds is found among the orphans
        return
    if not same_boot:
        container.process = container.monitor = None
    if not container.visible:
        try:
            await _undo_container(parts, sandbox, container)
        except NoderuntimeError:
            await keep_undone_container(parts, container)
            raise
        return
    await settle(parts, container)
    if not container.live:
        return
    if not await _runs(parts, container.monitor):
        await halt(parts, container, 0)
    elif container.starting:
        await fail_start(parts, container, "the daemon ended while it was being started")


async def _undo_container(parts: Parts, sandbox: Sandbox, container: Container) -> None:
    paths = parts.paths.container(container.id)
    await _end_monitor(parts, sandbox, container.id)
    await parts.executor(sandbox.handler).delete(container.id, sandbox.id)
    await parts.monitor.forget(container.id)
    await remove_unused_log(container.log_path)
    await parts.images.release(container.id, paths.rootfs)
    await parts.host.remove_tree(paths.bundle)
    await parts.ledger.containers.drop(container)


async def _sandbox(parts: Parts, sandbox: Sandbox, same_boot: bool) -> None:
    bind_sandbox(sandbox)
    if not same_boot:
        sandbox.root = sandbox.monitor = None
    if not sandbox.visible:
        try:
            await _undo_sandbox(parts, sandbox)
        except NoderuntimeError:
            await keep_undone_sandbox(parts, sandbox)
            raise
    elif sandbox.ready and not (same_boot and await _is_pinned(parts, sandbox)):
        await give_back(parts, sandbox)
    elif sandbox.ready and needs_root(parts, sandbox) and not await _runs(parts, sandbox.root):
        await root_ended(parts, sandbox.id)


async def _undo_sandbox(parts: Parts, sandbox: Sandbox) -> None:
    await _end_monitor(parts, sandbox, sandbox.id)
    await release.root(parts, sandbox)
    await release.detach(parts, sandbox)
    await release.unpin(parts, sandbox)
    await release.remove_cgroups(parts, sandbox)
    await parts.host.remove_tree(parts.paths.sandbox(sandbox.id).dir)
    await parts.ledger.sandboxes.drop(sandbox)


async def _end_monitor(parts: Parts, sandbox: Sandbox, container_id: str) -> None:
    """Kill a monitor that may still be at work on an intent, with the runtime that it runs."""
    pids = await parts.host.cgroup_pids(monitor_cgroup(cgroup_of(parts, sandbox)))
    not_moved_yet = parts.monitor.pid(parts.paths.container(container_id).bundle)
    for pid in pids if not_moved_yet is None else {*pids, not_moved_yet}:
        process = await parts.host.process(pid)
        if process is not None and container_id in await FILES.run(_command_line, pid):
            await parts.host.kill_tree(process)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


async def _is_pinned(parts: Parts, sandbox: Sandbox) -> bool:
    """Tell whether each of the sandbox's namespaces is still mounted on its pin."""
    pins, user = [*pins_of(parts, sandbox).values()], user_of(parts, sandbox)
    if user is not None:
        pins.append(user.pin)
    mounted = [await parts.host.is_mount_point(pin) for pin in pins]
    return parts.paths.sandbox(sandbox.id).dir.is_dir() and all(mounted)


async def _runs(parts: Parts, process: ProcessRef | None) -> bool:
    return process is not None and await parts.host.process(process.pid) == process
