"""conmon 2.1 as a monitor: one per container, started through its gate, heard through its sync pipe.

conmon reads a byte from ``_OCI_STARTPIPE``, forks, and runs the runtime's ``create``. On
``_OCI_SYNCPIPE`` it then writes one JSON object: ``{"data": PID}``, or a negative number and
the runtime's own ``message``. Meanwhile it is put into the pod's cgroup: the kernel makes whoever
moves a process wait for 5 to 20 ms, which would otherwise come on top. The runtime's short-lived
processes stay where the daemon is, so a pod's memory limit need not have room for them.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from noderuntime.core import tasks
from noderuntime.core.blocking import FILES, apart
from noderuntime.core.errors import (
    DeadlineExceeded,
    HostError,
    Internal,
    NoderuntimeError,
    NotFound,
    ToolError,
)
from noderuntime.node.host.base import Conversation, Host, Launched, ProcessRef
from noderuntime.node.host.inotify import CREATE, MOVED_TO, DirectoryWatch
from noderuntime.node.host.process import read_pid
from noderuntime.node.host.words import one_line
from noderuntime.node.monitor.attach import attach
from noderuntime.node.monitor.base import Exit, Monitored, MonitorRequest
from noderuntime.node.monitor.control import tell

_CREATE_TIMEOUT = 60.0
_DAEMONIZE_TIMEOUT = 10.0
_REOPEN_TIMEOUT = 5.0
_KILL_PATIENCE = 10.0
_LONGEST_CODE = 16
_PIDFILE = "conmon.pid"
_REOPEN_LOG = b"2 0 0\n"
"""Message to the ``ctl`` fifo: kind 2 with two unused numbers."""


class ConmonMonitor:
    """See :class:`noderuntime.node.monitor.base.Monitor`."""

    def __init__(self, host: Host, conmon: Path, exit_dir: Path, persist_dir: Path) -> None:
        self._host = host
        self._conmon = conmon
        self._exit_dir = exit_dir
        self._persist_dir = persist_dir

    async def create(self, request: MonitorRequest) -> Monitored:
        """Start conmon, which runs the runtime's ``create``."""
        persistent = self._persist_dir / request.container_id
        await FILES.run(lambda: persistent.mkdir(parents=True, exist_ok=True))
        return await self._converse(request)

    async def reopen_log(self, bundle: Path, log_path: Path) -> None:
        """Tell conmon to open its log anew, and wait until the file is there."""
        directory = str(log_path.parent)
        with DirectoryWatch() as watch:
            await apart(
                lambda: watch.add(log_path.parent, CREATE | MOVED_TO),
                what=f"watch {directory}",
                subject=directory,
            )
            tell(bundle / "ctl", _REOPEN_LOG)
            try:
                async with asyncio.timeout(_REOPEN_TIMEOUT):
                    while not await apart(
                        lambda: os.path.lexists(log_path),
                        what=f"look for {log_path}",
                        subject=directory,
                        abandon=True,
                    ):
                        await watch.changes()
            except TimeoutError:
                raise DeadlineExceeded(f"the monitor did not reopen {log_path.name}") from None

    async def attach(self, bundle: Path) -> Conversation:
        """Connect to conmon's attach socket."""
        return await attach(bundle)

    def pid(self, bundle: Path) -> int | None:
        """Read the PID that conmon wrote down."""
        return read_pid(bundle / _PIDFILE)

    def exit(self, container_id: str) -> Exit | None:
        """Read the exit file, which conmon renames into place."""
        try:
            with (self._exit_dir / container_id).open("rb") as file:
                code = int(file.read(_LONGEST_CODE))
                return Exit(container_id, code, os.fstat(file.fileno()).st_mtime_ns)
        except (FileNotFoundError, ValueError):
            return None

    def oom_killed(self, container_id: str) -> bool:
        """Tell whether conmon left its mark of an out-of-memory kill."""
        return (self._persist_dir / container_id / "oom").exists()

    async def forget(self, container_id: str) -> None:
        """Remove the exit file and the persistent directory."""
        (self._exit_dir / container_id).unlink(missing_ok=True)
        await self._host.remove_tree(self._persist_dir / container_id)

    async def _converse(self, request: MonitorRequest) -> Monitored:
        """Start conmon, let it go, move it and hear who the container is; after an error conmon is gone."""
        argv = [str(self._conmon), *_arguments(request, self._exit_dir, self._persist_dir)]
        await self._host.make_cgroup(request.cgroup)  # before the runtime makes the one above it
        try:
            conmon = await self._host.launch(
                argv, gate="_OCI_STARTPIPE", reply="_OCI_SYNCPIPE", cwd=request.bundle
            )
        except HostError as error:
            if error.errno == errno.ENOENT:
                raise NotFound(f"the monitor {self._conmon} is missing") from error
            raise
        monitor: ProcessRef | None = None
        try:
            await _release(conmon)
            status = await conmon.daemonized(timeout=_DAEMONIZE_TIMEOUT)
            monitor = await self._identify(request.bundle)
            moving = tasks.start(self._move(monitor, request.cgroup), name="move a monitor into its cgroup")
            try:
                line = await conmon.reply(timeout=_CREATE_TIMEOUT)
            finally:
                await moving
            if not line:
                raise await FILES.run(_silent, status, request.runtime)
            return await self._monitored(_pid(line, request.runtime), monitor)
        except BaseException:
            await self._end(monitor or await self._identify(request.bundle))
            raise
        finally:
            await conmon.close()

    async def _move(self, monitor: ProcessRef | None, cgroup: str) -> None:
        """Put conmon into its cgroup, or end it, so that its verdict is not waited for."""
        try:
            if monitor is not None:
                await self._host.join_cgroup(cgroup, monitor.pid)
        except HostError:
            if monitor is not None and await self._host.process(monitor.pid) == monitor:
                await self._end(monitor)  # else it has ended, and said why
                raise

    async def _end(self, monitor: ProcessRef | None) -> None:
        if monitor is not None:
            await self._host.kill_tree(monitor)
            await self._host.wait(monitor, timeout=_KILL_PATIENCE)

    async def _identify(self, bundle: Path) -> ProcessRef | None:
        """Identify what conmon has become when it daemonized; None when that has ended."""
        pid = await FILES.run(self.pid, bundle)
        return None if pid is None else await self._host.process(pid)

    async def _monitored(self, pid: int, monitor: ProcessRef | None) -> Monitored:
        process = await self._host.process(pid)
        if process is None:
            raise Internal(f"the container's process {pid} ended at once")
        if monitor is None:
            raise Internal(f"the monitor of the container's process {pid} ended at once")
        return Monitored(process, monitor)


async def _release(conmon: Launched) -> None:
    """Let conmon go on, unless it has ended by now."""
    try:
        await conmon.release()
    except HostError as error:
        if error.errno != errno.EPIPE:
            raise


def _silent(status: int, runtime: Path) -> NoderuntimeError:
    """Say why conmon ended without a verdict: before its gate, it only looks whether the runtime is there."""
    if not os.access(runtime, os.X_OK):
        return NotFound(f"the runtime {runtime} is missing")
    return ToolError("conmon", "create", status, "it ended without a verdict")


def _arguments(request: MonitorRequest, exit_dir: Path, persist_dir: Path) -> Iterator[str]:
    yield from ("--api-version", "1")
    yield from ("-c", request.container_id, "-u", request.container_id, "-n", request.name)
    yield from ("-r", str(request.runtime))
    for flag in request.runtime_flags:
        yield f"--runtime-arg={flag}"
    yield from ("-b", str(request.bundle))
    yield from ("-p", str(request.bundle / "pidfile"), "-P", str(request.bundle / _PIDFILE))
    yield from ("-l", f"k8s-file:{request.log_path}" if request.log_path else "off:")
    yield from ("--exit-dir", str(exit_dir), "--persist-dir", str(persist_dir / request.container_id))
    yield from ("--full-attach", "--no-sync-log")
    if request.tty:
        yield "-t"
    if request.stdin:
        yield "-i"
        if not request.stdin_once:
            yield "--leave-stdin-open"


def _pid(line: bytes, runtime: Path) -> int:
    """Read conmon's verdict; ToolError carries the runtime's words when the container was not created."""
    try:
        verdict = json.loads(line)
    except ValueError as error:
        raise Internal(f"conmon said {line[:80]!r}, which is no JSON") from error
    said = verdict if isinstance(verdict, dict) else {}
    pid = said.get("data")
    if isinstance(pid, int) and pid > 0:
        return pid
    words = one_line(str(said.get("message", "")))
    raise ToolError(runtime.name, "create", -pid if isinstance(pid, int) else 1, words)
