"""What a handler is: an OCI runtime, driven through its command line.

One instance per configured handler, without state of its own: everything it
needs to know of a container is in the bundle and in what the caller passes.
``oci``, ``runc`` and ``gvisor`` follow this protocol; tests hold all three to it.

A container's life: ``conmon … -r RUNTIME`` runs the runtime's ``create``
(:meth:`Executor.monitor_runtime` says which program and global flags that is),
then :meth:`start`, then the process ends by itself or by :meth:`kill`, then
:meth:`delete`. ``sandbox_id`` names the root container in every call, because
gVisor's tool must find the sandbox that a sub-container lives in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from noderuntime.node.host.base import Conversation, ProcessRef, Program


@dataclass(frozen=True, slots=True)
class Features:
    """What the binary said of itself."""

    version: str
    user_namespaces: bool
    recursive_read_only_mounts: bool


@dataclass(frozen=True, slots=True)
class Traits:
    """The properties by which handlers differ. Other packages check a trait, never a handler's name."""

    root_container: bool = False
    """Each sandbox needs a root container, whose process holds the memory of all its containers."""
    own_kernel: bool = False
    """Pods have their own kernel: the node's security modules, UTS namespace and loopback do not apply."""
    cdi_devices: bool = True
    """Containers can get CDI devices."""


@dataclass(frozen=True, slots=True)
class RuntimeCommand:
    """The program that the monitor calls for ``create``, and its global flags."""

    path: Path
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What an ExecSync process left."""

    exit_code: int
    """The command's own; 128 + the signal's number when a signal ended it."""
    stdout: bytes
    stderr: bytes


class Interactive(Protocol):
    """Ways for a person into what runs."""

    async def exec(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, stdin: bool
    ) -> Program:
        """Start an OCI process in the container, on a terminal where it asks for one, and hold its stdio.

        Returns when it runs; ToolError with the runtime's words when it never will. The exit status is the
        process's own. Whoever closes it early leaves the process to what a hung up terminal or a broken pipe
        does to it.
        """

    async def connect(self, sandbox_id: str, netns: Path | None, port: int) -> Conversation:
        """Connect to a TCP port of the sandbox's localhost; a NoderuntimeError, here or in the
        first reading, says why that is not possible.

        ``netns`` is the sandbox's network namespace; None means the node's own.
        """


class Executor(Interactive, Protocol):
    """One handler."""

    name: str

    @property
    def traits(self) -> Traits:
        """The properties of this handler's pods; constant."""

    async def probe(self) -> Features:
        """Ask the binary what it can do; ToolError with its words when broken, NotFound when missing."""

    def monitor_runtime(self, container_id: str, sandbox_id: str, *, is_root: bool) -> RuntimeCommand:
        """Name the program and flags with which the monitor runs ``create``."""

    def adapt_spec(self, spec: dict[str, Any], sandbox_id: str, *, is_root: bool) -> None:
        """Change a finished OCI spec where this runtime needs it (annotations, namespaces)."""

    async def start(self, container_id: str, sandbox_id: str, *, is_root: bool) -> None:
        """Start what ``create`` prepared."""

    async def kill(
        self, container_id: str, sandbox_id: str, signo: int, *, process: ProcessRef | None = None
    ) -> bool:
        """Signal a container's first process; SIGKILL ends a container of a sandbox's kernel with all it has.

        ``process`` is the first process as the ledger knows it, which needs no state of the runtime's.
        True when the signal is sent, whatever its effect; False for a container that has ended or is missing.
        """

    async def holds(self, container_id: str) -> bool:
        """Tell whether the runtime's directory has state of a container; the runtime itself is not called."""

    async def delete(self, container_id: str, sandbox_id: str) -> None:
        """Remove the runtime's state of a container, after killing what still runs; missing is no error.

        DeadlineExceeded says what a process does that does not end after SIGKILL.
        """

    async def exec_sync(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, timeout: float | None
    ) -> ExecResult:
        """Run an OCI process in the container; at the timeout kill it and raise DeadlineExceeded.

        Each stream is cut at 16 MiB.
        """

    async def update(self, container_id: str, sandbox_id: str, resources: Mapping[str, Any]) -> None:
        """Set OCI ``linux.resources`` on a live container."""

    async def checkpoint(
        self, container_id: str, sandbox_id: str, directory: Path, *, timeout: float
    ) -> None:
        """Write images of a running container's processes below a directory.

        DeadlineExceeded at the timeout (seconds); FailedPrecondition when the node lacks CRIU; Unimplemented
        when this handler has no checkpoints. After an error the caller thaws the container's cgroup.
        """

    async def pids(self, container_id: str, sandbox_id: str) -> Sequence[int]:
        """List the host PIDs of a container; empty where they have none (gVisor)."""
