"""What watches a container: holds its stdio, writes its log, keeps its exit code.

A monitor is a process of its own, in its pod's cgroup, that survives this daemon.

    create ──► [created; the executor starts it] ──► the monitor ends ──► exit ──► forget

* ``create`` is all or nothing: after an error no process is left. The runtime's state
  may be, so the caller follows a failed create with the executor's ``delete``.
* A monitor ends right after it has written how its container ended; that lies on disk until ``forget``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from noderuntime.node.host.base import Conversation, ProcessRef


@dataclass(frozen=True, slots=True)
class MonitorRequest:
    """A container to create under a monitor."""

    container_id: str
    name: str
    bundle: Path
    """Directory that holds ``config.json``; the monitor keeps its sockets there."""
    runtime: Path
    runtime_flags: tuple[str, ...]
    cgroup: str
    """Path of the cgroup that the monitor is put into; see host.cgroup_names."""
    log_path: Path | None = None
    """Log file in the CRI format; None keeps none. Its directory must exist."""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False


@dataclass(frozen=True, slots=True)
class Monitored:
    """A container that was created, and its monitor."""

    process: ProcessRef
    monitor: ProcessRef


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended."""

    container_id: str
    exit_code: int
    finished_at: int
    """Nanoseconds since the epoch."""


class Monitor(Protocol):
    """One way of watching containers."""

    async def create(self, request: MonitorRequest) -> Monitored:
        """Start the monitor, which runs the runtime's ``create``.

        Raises ToolError with the runtime's own words, DeadlineExceeded when it hangs.
        """

    async def reopen_log(self, bundle: Path, log_path: Path) -> None:
        """Make the monitor close its log and open the path anew (the caller renamed the old file).

        Returns when the new file is there. FailedPrecondition when the monitor has ended.
        """

    async def attach(self, bundle: Path) -> Conversation:
        """Take part in the stdio of a container, from now on; any number may at the same time.

        Its output ends with the container. FailedPrecondition when the monitor has ended.
        """

    def pid(self, bundle: Path) -> int | None:
        """Read who monitors the container of a bundle; None while nobody does.

        Where the daemon died within a create, that process may not be in its cgroup yet.
        """

    def exit(self, container_id: str) -> Exit | None:
        """Read how a container ended, None while it has not."""

    def oom_killed(self, container_id: str) -> bool:
        """Tell whether the monitor saw the kernel kill in the container for want of memory."""

    async def forget(self, container_id: str) -> None:
        """Remove what is kept of an ended container; missing is no error."""
