"""The protocol of runtime handlers: an OCI runtime, driven through its command line.

There is one executor per configured handler. An executor has no state of its own: it takes all facts about a
container from the bundle and from its arguments. ``oci``, ``runc`` and ``gvisor`` implement the protocol, and
one test suite runs against all three.

    conmon … -r RUNTIME create ──► start ──► the process exits, or kill ──► delete

:meth:`Executor.monitor_runtime` returns the program and the global flags for ``create``. ``sandbox_id`` is
the ID of the root container. It is an argument of every call, because runsc must find the sandbox of a
sub-container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from noderuntime.node.host.base import Conversation, ProcessRef, Program


@dataclass(frozen=True, slots=True)
class Features:
    """The version and the features that the handler's binary reports."""

    version: str
    user_namespaces: bool
    recursive_read_only_mounts: bool


@dataclass(frozen=True, slots=True)
class Traits:
    """The properties by which handlers differ. Other packages check a trait, never a handler's name."""

    root_container: bool = False
    """Each sandbox needs a root container. The memory of all its containers is charged to its process."""
    own_kernel: bool = False
    """Pods have their own kernel: the node's security modules, UTS namespace and loopback do not apply."""
    cdi_devices: bool = True
    """Containers can get CDI devices."""


@dataclass(frozen=True, slots=True)
class RuntimeCommand:
    """The program that the monitor runs for ``create``, and its global flags."""

    path: Path
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The result of an ExecSync process."""

    exit_code: int
    """The exit code of the command, or 128 + the signal number if a signal ended it."""
    stdout: bytes
    stderr: bytes


class Interactive(Protocol):
    """The interactive part of an executor: exec and port forwarding."""

    async def exec(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, stdin: bool
    ) -> Program:
        """Start an OCI process in the container and return it with its stdio (CRI: Exec).

        It gets a terminal if its ``terminal`` is set. Returns once the process runs. ToolError with the
        runtime's error message if it cannot be started. The exit status is that of the process. If the caller
        closes it early, the process gets SIGHUP from its terminal, or EPIPE.
        """

    async def connect(self, sandbox_id: str, netns: Path | None, port: int) -> Conversation:
        """Connect to a TCP port of the sandbox's localhost (CRI: PortForward).

        NoderuntimeError, here or in the first read, if the connection fails. ``netns`` is the sandbox's
        network namespace, None for that of the node.
        """


class Executor(Interactive, Protocol):
    """A runtime handler."""

    name: str

    @property
    def traits(self) -> Traits:
        """The properties of this handler's pods. They never change."""

    async def probe(self) -> Features:
        """Query the binary's features. ToolError with its output if it fails, NotFound if it is missing."""

    def monitor_runtime(self, container_id: str, sandbox_id: str, *, is_root: bool) -> RuntimeCommand:
        """Return the program and the flags with which the monitor runs ``create``."""

    def adapt_spec(self, spec: dict[str, Any], sandbox_id: str, *, is_root: bool) -> None:
        """Change a finished OCI spec in place, as this runtime needs it (annotations, namespaces)."""

    async def start(self, container_id: str, sandbox_id: str, *, is_root: bool) -> None:
        """Start a created container (OCI: start)."""

    async def kill(
        self, container_id: str, sandbox_id: str, signo: int, *, process: ProcessRef | None = None
    ) -> bool:
        """Signal the first process of a container. In a gVisor sandbox, SIGKILL kills all its processes.

        ``process`` is the first process from the ledger, for which the runtime's state is not needed.
        Return True if the signal was sent, False if the container has ended or is missing.
        """

    async def has_state(self, container_id: str) -> bool:
        """Return whether the runtime's state directory has a container. Does not run the runtime."""

    async def delete(self, container_id: str, sandbox_id: str) -> None:
        """Kill a container's processes and remove its runtime state. No error if it is missing.

        DeadlineExceeded, with the state of the process, if a process does not end after SIGKILL.
        """

    async def exec_sync(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, timeout: float | None
    ) -> ExecResult:
        """Run an OCI process in the container to its end (CRI: ExecSync).

        Kills it after ``timeout`` seconds and raises DeadlineExceeded. Each stream is truncated at 16 MiB.
        """

    async def update(self, container_id: str, sandbox_id: str, resources: Mapping[str, Any]) -> None:
        """Set OCI ``linux.resources`` of a running container (CRI: UpdateContainerResources)."""

    async def checkpoint(
        self, container_id: str, sandbox_id: str, directory: Path, *, timeout: float
    ) -> None:
        """Write a checkpoint of a running container to a directory (CRI: CheckpointContainer).

        DeadlineExceeded after ``timeout`` seconds, FailedPrecondition if CRIU is not installed, Unimplemented
        if this handler does not support checkpoints. After an error the caller thaws the container's cgroup.
        """

    async def pids(self, container_id: str, sandbox_id: str) -> Sequence[int]:
        """Return the host PIDs of a container. Empty for a container in a gVisor sandbox."""
