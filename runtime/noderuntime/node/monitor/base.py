"""The protocol of container monitors. A monitor holds the stdio, writes the log and records the exit code.

Each monitor is a separate process in its pod's cgroup. It survives a restart of this daemon.

    create ──► [created; the executor starts it] ──► the monitor ends ──► exit ──► forget

* ``create`` is all or nothing: after an error no process is left. The runtime's state
  can be left, so the caller runs the executor's ``delete`` after a failed create.
* A monitor exits right after it has recorded its container's exit, which stays on disk until ``forget``.
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
    """The directory with ``config.json``. The monitor creates its sockets there."""
    runtime: Path
    runtime_flags: tuple[str, ...]
    cgroup: str
    """The path of the monitor's cgroup; see :mod:`noderuntime.node.host.cgroup_names`."""
    log_path: Path | None = None
    """The log file in the CRI format, or None for no log. Its directory must exist."""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False


@dataclass(frozen=True, slots=True)
class Monitored:
    """The first process of a created container, and its monitor."""

    process: ProcessRef
    monitor: ProcessRef


@dataclass(frozen=True, slots=True)
class Exit:
    """The exit of a container."""

    container_id: str
    exit_code: int
    finished_at: int
    """Nanoseconds since the epoch."""


class Monitor(Protocol):
    """An implementation of container monitors."""

    async def create(self, request: MonitorRequest) -> Monitored:
        """Start the monitor, which runs the runtime's ``create``.

        ToolError with the runtime's error message, DeadlineExceeded if the runtime hangs.
        """

    async def reopen_log(self, bundle: Path, log_path: Path) -> None:
        """Make the monitor close its log and reopen the path (CRI: ReopenContainerLog).

        The caller has renamed the old file. Returns when the new file exists. FailedPrecondition if the
        monitor has ended, DeadlineExceeded if the file does not appear.
        """

    async def attach(self, bundle: Path) -> Conversation:
        """Connect to the stdio of a container (CRI: Attach). Several connections can exist at a time.

        The output starts now and ends with the container. FailedPrecondition if the monitor has ended.
        """

    def pid(self, bundle: Path) -> int | None:
        """Return the PID of the monitor of a bundle's container, or None if no PID is recorded.

        If the daemon died during ``create``, that process may not be in its cgroup yet.
        """

    def exit(self, container_id: str) -> Exit | None:
        """Return the exit of a container, or None if it has not ended."""

    def oom_killed(self, container_id: str) -> bool:
        """Return whether the monitor recorded an OOM kill in the container."""

    async def forget(self, container_id: str) -> None:
        """Remove the records of an ended container. No error if they are missing."""
