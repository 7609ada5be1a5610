"""The interface to the kernel: the only layer that starts programs, mounts or makes system calls.

:class:`noderuntime.node.host.linux.LinuxHost` implements it. Unit tests use a fake.
No method blocks the event loop; a blocking call runs in a worker thread.
A failure raises HostError, a missed deadline DeadlineExceeded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any, Literal, Protocol

NamespaceKind = Literal["net", "ipc", "uts"]
Address = IPv4Interface | IPv6Interface
"""An interface's address with its prefix length."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of a program: its exit status (negative: killed by that signal) and its output."""

    returncode: int
    stdout: bytes
    stderr: bytes


def shell_status(status: int) -> int:
    """Return an exit status as a shell reports it: 128 + the signal number if a signal killed the program."""
    return status if status >= 0 else 128 - status


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """The identity of a process, which differs from that of a later process with the same PID.

    ``start_time`` is field 22 of ``/proc/PID/stat``, in clock ticks since boot.
    """

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class IdRange:
    """A mapping of ``size`` IDs, from ``inside`` in the namespace to ``outside`` on the node."""

    inside: int
    outside: int
    size: int


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """A user namespace: the path where it is pinned, and its ID mappings."""

    pin: Path
    uids: IdRange
    gids: IdRange

    @property
    def root(self) -> tuple[int, int]:
        """The node's UID and GID of root in the namespace, which are the first of each range."""
        return self.uids.outside, self.gids.outside


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount, with options as in mount(8): "bind", "ro", "rslave", and those of the filesystem.

    With a user namespace it is the root filesystem of a container in it: the layers of an overlay are mounted
    with mapped IDs (mount_setattr(2)), and the writable directory is owned by the namespace's root.
    """

    source: str
    target: Path
    fstype: str
    options: tuple[str, ...] = ()
    user: UserNamespace | None = None


class Launched(Protocol):
    """A program that waits for a byte, daemonizes, and writes a one-line reply; see :meth:`Host.launch`."""

    @property
    def pid(self) -> int:
        """The program's PID, before it daemonizes."""

    async def release(self) -> None:
        """Write the byte that the program waits for."""

    async def reply(self, *, timeout: float, limit: int = 1 << 16) -> bytes:
        """Return the program's output up to the first newline or end of file.

        DeadlineExceeded after ``timeout`` seconds.
        """

    async def daemonized(self, *, timeout: float) -> int:
        """Wait for the end of the program, not of its daemon, and return its exit status.

        After ``timeout`` seconds kill its process group and raise DeadlineExceeded.
        """

    async def close(self) -> None:
        """Close the pipes. Kill the program's process group if it has not daemonized."""


STDOUT, STDERR = 1, 2


class Conversation(Protocol):
    """The stdio of a running process or connection, held until :meth:`close`."""

    async def read(self) -> tuple[int, bytes]:
        """Return the stream (STDOUT or STDERR) and at most 64 KiB of output. No bytes at the end."""

    async def write(self, data: bytes) -> None:
        """Write to the stdin, waiting while it is full. BrokenPipeError if it is no longer read."""

    def end_input(self) -> None:
        """Close the stdin. Without effect on a terminal."""

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal. Without effect if there is no terminal."""

    async def close(self) -> None:
        """Release the stdio."""


class Program(Conversation, Protocol):
    """A child process and its stdio. ``close`` hangs up its terminal and kills the program."""

    async def ended(self) -> None:
        """Wait for the program's end. Can be called repeatedly."""

    async def wait(self) -> int:
        """Wait for the program's end and return its exit status (negative: killed by that signal)."""

    def follow(self, end: Coroutine[Any, Any, object]) -> None:
        """End the output and the program soon after the process whose output it copies has ended.

        By itself, such a program does not end before all processes that have inherited the output. ``end``
        returns when the process has ended; if it fails, the program is awaited.
        """

    def release(self) -> None:
        """Kill the program and keep its streams, whose other ends it has passed to another process."""


class Watching(Protocol):
    """A watch for the end of a process; see :meth:`Host.watch`."""

    def close(self) -> None:
        """Stop watching."""


class Host(Protocol):
    """The system calls that the layers above use."""

    async def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output_limit: int = 1 << 20,
        pass_fds: Sequence[int] = (),
    ) -> Completed:
        """Run a program to its end and return its result.

        After ``timeout`` seconds kill its process group and raise DeadlineExceeded. Output beyond
        ``output_limit`` bytes per stream is read and discarded.
        """

    async def launch(
        self,
        argv: Sequence[str],
        *,
        gate: str,
        reply: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Launched:
        """Start a program that daemonizes, with two pipes whose descriptors are in its environment.

        ``gate`` and ``reply`` are the names of the variables. The program reads a byte from the first pipe
        before it does anything else, and writes its reply to the second.
        """

    async def converse(self, argv: Sequence[str], *, stdin: bool, terminal: bool) -> Program:
        """Start a program with its streams on pipes, or on a controlling terminal.

        Without ``stdin`` and ``terminal`` its stdin is ``/dev/null``.
        """

    async def connect(self, netns: Path | None, port: int) -> Conversation:
        """Connect to a TCP port of localhost, IPv4 first, in a pinned network namespace or the node's."""

    async def mount(self, mount: Mount) -> None:
        """Mount a filesystem. The target must exist."""

    async def unmount(self, target: Path) -> None:
        """Lazily unmount all mounts at a path. No error if there are none or the path does not exist."""

    async def mounted(self, paths: Collection[Path]) -> set[Path]:
        """Return the paths that are on another filesystem than their parent directories."""

    async def pin_namespaces(
        self,
        pins: Mapping[NamespaceKind, Path],
        *,
        hostname: str | None = None,
        sysctls: Mapping[str, str] | None = None,
        user: UserNamespace | None = None,
    ) -> None:
        """Create namespaces and pin each with a bind mount at its path (an empty file).

        Sets ``lo`` up in a new network namespace, sets the hostname in a new UTS namespace and
        writes the sysctls from inside. A user namespace is also created and pinned, and owns the others.
        After a failure no pin is left.
        """

    async def unpin_namespaces(self, pins: Sequence[Path]) -> None:
        """Unmount and remove the pins. No error if they are missing."""

    async def set_sysctls(self, pin: Path, sysctls: Mapping[str, str]) -> None:
        """Write sysctls in a pinned network namespace. InvalidArgument names the one that cannot be set."""

    async def remove_network_lock(self, pin: Path) -> None:
        """Remove the rules with which a killed CRIU blocks the network of a pinned namespace."""

    async def add_addresses(self, pin: Path, interface: str, addresses: Sequence[Address]) -> None:
        """Add the addresses that an interface in a pinned network namespace lacks.

        No error if there is no such interface.
        """

    async def process(self, pid: int, *, names: str = "") -> ProcessRef | None:
        """Return the identity of a running process. None if no process has the PID or it is a zombie.

        None also if the command line does not contain ``names``: a PID that was written down earlier can be
        that of another process by now.
        """

    async def signal(self, process: ProcessRef, signo: int, *, cgroup: str | None = None) -> bool:
        """Send a signal through a pidfd. Return False if the process has ended.

        With a ``cgroup``, signal only a process in it or below it, and return False for any other.
        """

    async def wait(self, process: ProcessRef, *, timeout: float) -> bool:
        """Wait for the end of a process. Return False if it has not ended after ``timeout`` seconds."""

    def watch(self, process: ProcessRef, on_end: Callable[[], None]) -> Watching:
        """Call ``on_end`` once, on the event loop, when a process ends or if it has already ended."""

    async def processes_with(self, *arguments: str) -> list[ProcessRef]:
        """Return the processes whose command lines contain all of the arguments."""

    async def stuck(self, process: ProcessRef) -> str:
        """Describe a process that does not end: its state, and the kernel function in which it sleeps."""

    async def give_stdio(self, process: ProcessRef, uid: int) -> None:
        """Change the owner of the pipes among a process's standard streams. No error if it has ended."""

    async def read_fifo(self, fifo: Path, writer: ProcessRef, *, timeout: float) -> bool:
        """Open a fifo whose writer waits for a reader. Return whether the writer wrote.

        Return False if the fifo is missing, the writer ends, or ``timeout`` seconds have passed.
        """

    async def kill_tree(self, process: ProcessRef, *, cgroup: str | None = None) -> None:
        """SIGKILL a process and its descendants. No error if it has ended.

        With a ``cgroup``, signal only processes in it or below it.
        """

    async def remove_tree(self, path: Path) -> None:
        """Remove a directory tree. Does not follow symlinks or cross mounts. No error if it is missing."""

    def cgroup_version(self) -> Literal[1, 2]:
        """Return the version of the cgroup hierarchy that has the memory controller."""

    async def make_cgroup(self, path: str) -> None:
        """Create the cgroup, in every v1 hierarchy or in v2, if it is missing."""

    async def join_cgroup(self, path: str, pid: int) -> None:
        """Create the cgroup if it is missing, and move a process into it, which takes 5 to 20 ms."""

    async def join_hybrid_cgroup(self, path: str, pid: int) -> None:
        """Move a process into an existing cgroup of the v2 hierarchy beside those of v1.

        Only in systemd's hybrid mode, in which systemd finds the processes of services in that hierarchy.
        """

    async def cgroup_pids(self, path: str) -> list[int]:
        """Return the PIDs in the cgroup and below it. Empty if it is missing."""

    async def kill_cgroup(self, path: str) -> None:
        """SIGKILL all processes in the cgroup and below it, also frozen ones. No error if it is missing.

        A process that is forked meanwhile can survive; :meth:`empty_cgroup` repeats the kill.
        """

    async def empty_cgroup(self, path: str, *, timeout: float) -> None:
        """Kill the processes in the cgroup and below it until there are none, and wait for their ends.

        DeadlineExceeded, with a description of the process, if one has not ended after ``timeout`` seconds.
        """

    async def thaw_cgroup(self, path: str) -> None:
        """Thaw the cgroup and the cgroups below it. No error if it is missing."""

    async def cgroup_oom_kills(self, path: str) -> int:
        """Return the number of OOM kills in the cgroup, 0 if it is missing."""

    async def remove_cgroup(self, path: str) -> None:
        """Remove the cgroup and the cgroups below it, in all hierarchies. No error if it is missing.

        HostError (EBUSY), with a description of the process, if a process in it does not end in 5 s.
        """
