"""conmon 2.1 as the monitor: one process per container, started through a pipe, reporting through another.

conmon reads a byte from ``_OCI_STARTPIPE``, forks, and runs the runtime's ``create``. It then writes one
JSON object to ``_OCI_SYNCPIPE``: ``{"data": PID}``, or a negative ``data`` and the runtime's error
``message``. Meanwhile the daemon moves it into the pod's cgroup: a write to cgroup.procs takes 5 to 20 ms,
so it overlaps with ``create``. The short-lived processes of the runtime stay in the daemon's cgroup, so a
pod's memory limit does not have to allow for them.

In systemd's hybrid mode, conmon joins its cgroup in systemd's v2 hierarchy before the byte: runsc moves its
processes in the hierarchies of v1 only. So they stay in conmon's cgroup, which must not be the daemon's.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from noderuntime.core import log, tasks
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
from noderuntime.node.host.messages import one_line
from noderuntime.node.host.process import read_pid
from noderuntime.node.monitor.attach import attach
from noderuntime.node.monitor.base import Exit, Monitored, MonitorRequest
from noderuntime.node.monitor.control import send

_log = log.get(__name__)

_CREATE_TIMEOUT = 60.0
_DAEMONIZE_TIMEOUT = 10.0
_REOPEN_TIMEOUT = 5.0
_KILL_TIMEOUT = 10.0
_LONGEST_CODE = 16
_PIDFILE = "conmon.pid"
_REOPEN_LOG = b"2 0 0\n"
"""The message for the ``ctl`` fifo: kind 2 and two unused numbers."""


class ConmonMonitor:
    """See :class:`noderuntime.node.monitor.base.Monitor`."""

    def __init__(self, host: Host, conmon: Path, exit_dir: Path, persist_dir: Path) -> None:
        self._host = host
        self._conmon = conmon
        self._exit_dir = exit_dir
        self._persist_dir = persist_dir

    async def create(self, request: MonitorRequest) -> Monitored:
        """Start conmon, which runs the runtime's ``create``."""
        (self._persist_dir / request.container_id).mkdir(parents=True, exist_ok=True)
        return await self._create(request)

    async def reopen_log(self, bundle: Path, log_path: Path) -> None:
        """Make conmon reopen its log, and wait until the file exists."""
        directory = str(log_path.parent)
        with DirectoryWatch() as watch:
            await apart(
                lambda: watch.add(log_path.parent, CREATE | MOVED_TO),
                what=f"watch {directory}",
                subject=directory,
            )
            send(bundle / "ctl", _REOPEN_LOG)
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
        """Return the PID from conmon's PID file."""
        return read_pid(bundle / _PIDFILE)

    def exit(self, container_id: str) -> Exit | None:
        """Return the content of the exit file, which conmon renames into place."""
        try:
            with (self._exit_dir / container_id).open("rb") as file:
                code = int(file.read(_LONGEST_CODE))
                return Exit(container_id, code, os.fstat(file.fileno()).st_mtime_ns)
        except (FileNotFoundError, ValueError):
            return None

    def oom_killed(self, container_id: str) -> bool:
        """Return whether conmon created its marker file for an OOM kill."""
        return (self._persist_dir / container_id / "oom").exists()

    async def forget(self, container_id: str) -> None:
        """Remove the exit file and the persistent directory."""
        (self._exit_dir / container_id).unlink(missing_ok=True)
        await self._host.remove_tree(self._persist_dir / container_id)

    async def _create(self, request: MonitorRequest) -> Monitored:
        """Start conmon, move it into its cgroup and return the container that it reports.

        Kills conmon on an error.
        """
        argv = [str(self._conmon), *_arguments(request, self._exit_dir, self._persist_dir)]
        await self._host.make_cgroup(request.cgroup)  # must exist before the runtime creates its parent
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
            await self._release(conmon, request.cgroup)
            status = await conmon.daemonized(timeout=_DAEMONIZE_TIMEOUT)
            monitor = await self._identify(request.bundle)
            move = tasks.start(self._move(monitor, request.cgroup), name="move a monitor into its cgroup")
            try:
                line = await conmon.reply(timeout=_CREATE_TIMEOUT)
            finally:
                await move
            if not line:
                raise await FILES.run(_no_report_error, status, request.runtime)
            return await self._monitored(_pid(line, request.runtime), monitor)
        except BaseException:
            await self._end(monitor or await self._identify(request.bundle))
            raise
        finally:
            await conmon.close()

    async def _release(self, conmon: Launched, cgroup: str) -> None:
        """Release conmon, which then runs the runtime. No error if conmon has ended."""
        try:
            await self._host.join_hybrid_cgroup(cgroup, conmon.pid)
            await conmon.release()
        except HostError as error:
            if error.errno not in (errno.ESRCH, errno.EPIPE):
                raise

    async def _move(self, monitor: ProcessRef | None, cgroup: str) -> None:
        """Move conmon into its cgroup. On failure kill it, which ends the wait for its report."""
        try:
            if monitor is not None:
                await self._host.join_cgroup(cgroup, monitor.pid)
        except HostError:
            if monitor is not None and await self._host.process(monitor.pid) == monitor:
                await self._end(monitor)  # otherwise it has ended and reported its error
                raise

    async def _end(self, monitor: ProcessRef | None) -> None:
        if monitor is not None:
            await self._host.kill_tree(monitor)
            if not await self._host.wait(monitor, timeout=_KILL_TIMEOUT):
                state = await self._host.stuck(monitor)
                _log.error("monitor of a container that was not created does not end", state=state)

    async def _identify(self, bundle: Path) -> ProcessRef | None:
        """Identify the daemonized conmon. None if it has ended."""
        pid = self.pid(bundle)
        return None if pid is None else await self._host.process(pid, names=str(bundle))

    async def _monitored(self, pid: int, monitor: ProcessRef | None) -> Monitored:
        process = await self._host.process(pid)
        if process is None:
            raise Internal(f"the container's process {pid} ended during create")
        if monitor is None:
            raise Internal(f"the monitor of the container's process {pid} ended during create")
        return Monitored(process, monitor)


def _no_report_error(status: int, runtime: Path) -> NoderuntimeError:
    """Return the error of a conmon that ended without a report.

    Before it reads from its start pipe, it only checks that the runtime is executable.
    """
    if not os.access(runtime, os.X_OK):
        return NotFound(f"the runtime {runtime} is missing")
    return ToolError("conmon", "create", status, "it ended without a report")


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
    """Return the PID from conmon's report. ToolError with the runtime's message if ``create`` failed."""
    try:
        parsed = json.loads(line)
    except ValueError as error:
        raise Internal(f"conmon's report {line[:80]!r} is not JSON") from error
    report = parsed if isinstance(parsed, dict) else {}
    pid = report.get("data")
    if isinstance(pid, int) and pid > 0:
        return pid
    message = one_line(str(report.get("message", "")))
    raise ToolError(runtime.name, "create", -pid if isinstance(pid, int) else 1, message)
