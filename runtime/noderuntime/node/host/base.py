"""The seam to the kernel: the only layer that spawns, mounts or makes system calls.

``noderuntime.node.host.linux.LinuxHost`` is the real one; unit tests use a fake.
Every method is async and blocks a worker thread at most, never the event loop.
Failures raise HostError, a missed deadline DeadlineExceeded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Literal, Protocol

NamespaceKind = Literal["net", "ipc", "uts"]
Address = IPv4Interface | IPv6Interface
"""With its prefix length, as an interface has it."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished program left: exit status (negative: killed by that signal) and output."""

    returncode: int
    stdout: bytes
    stderr: bytes


def shell_status(status: int) -> int:
    """Return an exit status as a shell reports it: 128 + the signal's number for a program that it killed."""
    return status if status >= 0 else 128 - status


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process that cannot be mistaken for a later one with the same PID.

    ``start_time`` is field 22 of ``/proc/PID/stat``, in clock ticks since boot.
    """

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class IdRange:
    """IDs of a user namespace, from ``inside`` on, which are the node's from ``outside`` on."""

    inside: int
    outside: int
    size: int


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """A user namespace that is or will be pinned, and whose IDs are the node's in another place."""

    pin: Path
    uids: IdRange
    gids: IdRange

    @property
    def root(self) -> tuple[int, int]:
        """The user and group of the node that are root inside; the ranges begin with it."""
        return self.uids.outside, self.gids.outside


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount as ``mount(8)`` would take it; options include "bind", "ro", "rslave" and the like.

    With a user namespace it is the root filesystem of a container in it: the layers of an overlay are seen as
    if the namespace's own had written them, and the directory that is written to is given to its root.
    """

    source: str
    target: Path
    fstype: str
    options: tuple[str, ...] = ()
    user: UserNamespace | None = None


class Launched(Protocol):
    """A program that waits at a gate, daemonizes, and says one line; see :meth:`Host.launch`."""

    async def release(self) -> None:
        """Let it pass the gate."""

    async def reply(self, *, timeout: float, limit: int = 1 << 16) -> bytes:
        """Return what it wrote up to the first newline or its end of file; DeadlineExceeded."""

    async def daemonized(self, *, timeout: float) -> int:
        """Wait for the program (not for what it left running) and return its exit status.

        At the timeout it is killed, with its process group.
        """

    async def close(self) -> None:
        """Close the pipes; kill it, with its process group, if it has not daemonized."""


STDOUT, STDERR = 1, 2


class Conversation(Protocol):
    """The stdio of something that runs, in our hands until :meth:`close`."""

    async def read(self) -> tuple[int, bytes]:
        """Return what it said next, on STDOUT or STDERR, at most 64 KiB; no bytes when it has said all."""

    async def write(self, data: bytes) -> None:
        """Write to its stdin, as slowly as it reads; BrokenPipeError when it reads no more."""

    def end_input(self) -> None:
        """Let its stdin end; a terminal's cannot, and stays."""

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal; nothing happens where it has none."""

    async def close(self) -> None:
        """Let go of it."""


class Program(Conversation, Protocol):
    """A program that we started, and its stdio. ``close`` hangs its terminal up, and kills the program."""

    async def ended(self) -> None:
        """Wait for the program's end; may be asked again and again, until :meth:`wait`."""

    async def wait(self) -> int:
        """Wait for the program's end and return its exit status (negative: killed by that signal)."""

    def release(self) -> None:
        """Kill the program and keep its streams: it has handed their other ends to somebody."""


class Watching(Protocol):
    """A process whose end will be reported; see :meth:`Host.watch`."""

    def close(self) -> None:
        """Stop watching."""


class Host(Protocol):
    """System calls, as the layers above need them."""

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
        """Run a program to its end; at the timeout (seconds) kill it and raise DeadlineExceeded.

        Output past ``output_limit`` bytes per stream is read and dropped.
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
        """Start a program that daemonizes, with two pipes whose descriptors it finds in its environment.

        ``gate`` and ``reply`` name the variables: it reads a byte from the first before
        it does anything, and writes its verdict into the second.
        """

    async def converse(self, argv: Sequence[str], *, stdin: bool, terminal: bool) -> Program:
        """Start a program with pipes for its streams, or with a terminal that it controls.

        Without ``stdin`` and terminal it reads from ``/dev/null``.
        """

    async def connect(self, netns: Path | None, port: int) -> Conversation:
        """Connect to a TCP port of localhost, IPv4 before IPv6, in a pinned network namespace or our own."""

    async def mount(self, mount: Mount) -> None:
        """Mount, creating no directory."""

    async def unmount(self, target: Path) -> None:
        """Detach whatever is mounted there, lazily; nothing mounted or no such path is no error."""

    async def mounted(self, paths: Collection[Path]) -> set[Path]:
        """Return those of the paths on which another filesystem than their parent's is mounted."""

    async def pin_namespaces(
        self,
        pins: Mapping[NamespaceKind, Path],
        *,
        hostname: str | None = None,
        sysctls: Mapping[str, str] | None = None,
        user: UserNamespace | None = None,
    ) -> None:
        """Make new namespaces and bind each to its path (an empty file).

        Brings ``lo`` up in a new network namespace, sets the hostname in a new UTS namespace and
        writes the sysctls from inside. With a user namespace that one is made and pinned as well, and
        owns the others. On failure no pin is left.
        """

    async def unpin_namespaces(self, pins: Sequence[Path]) -> None:
        """Unmount and remove the pins; missing ones are no error."""

    async def add_addresses(self, pin: Path, interface: str, addresses: Sequence[Address]) -> None:
        """Give an interface in a pinned network namespace the addresses that it lacks.

        No such interface is no error.
        """

    async def process(self, pid: int) -> ProcessRef | None:
        """Identify a running process; None if no process has the PID or it is a zombie."""

    async def signal(self, process: ProcessRef, signo: int, *, cgroup: str | None = None) -> bool:
        """Send a signal through a pidfd; False if that very process is gone.

        With a ``cgroup`` only a process in it or below it is signalled; False for any other.
        """

    async def wait(self, process: ProcessRef, *, timeout: float) -> bool:
        """Wait until that very process has ended; False when the timeout (seconds) came first."""

    def watch(self, process: ProcessRef, on_end: Callable[[], None]) -> Watching:
        """Call ``on_end`` once, on the event loop, when that very process has ended (or is gone already)."""

    async def processes_with(self, *arguments: str) -> list[ProcessRef]:
        """List the processes that have all of the arguments in their command lines."""

    async def stuck(self, process: ProcessRef) -> str:
        """Describe a process that does not end: its state, and the kernel's function that it sleeps in."""

    async def give_stdio(self, process: ProcessRef, uid: int) -> None:
        """Make the pipes that are a process's standard streams somebody's; gone is no error."""

    async def read_fifo(self, fifo: Path, writer: ProcessRef, *, timeout: float) -> bool:
        """Be the reader that a process waits for at a fifo; tell whether it wrote.

        It did not when there is no such file, when it ended before, or when the timeout (seconds) is over.
        """

    async def kill_tree(self, process: ProcessRef, *, cgroup: str | None = None) -> None:
        """SIGKILL a process and its descendants; gone is no error.

        With a ``cgroup`` only processes in it or below it are signalled.
        """

    async def remove_tree(self, path: Path) -> None:
        """Remove a directory tree without following links or crossing into mounts; missing is no error."""

    def cgroup_version(self) -> Literal[1, 2]:
        """Tell which cgroup hierarchy carries the memory controller."""

    async def make_cgroup(self, path: str) -> None:
        """Make the cgroup (in every v1 hierarchy, or v2) if it is missing."""

    async def join_cgroup(self, path: str, pid: int) -> None:
        """Make the cgroup if it is missing and move a process in; the kernel takes its time (5 to 20 ms)."""

    async def cgroup_pids(self, path: str) -> list[int]:
        """List all processes in the cgroup and below it; a missing cgroup has none."""

    async def kill_cgroup(self, path: str) -> None:
        """SIGKILL every process in the cgroup and below it, frozen or not; a missing cgroup has none.

        A process that was forked meanwhile can be left; :meth:`empty_cgroup` leaves none.
        """

    async def empty_cgroup(self, path: str, *, timeout: float) -> None:
        """Kill as above until the cgroup has no process, and wait for their ends.

        DeadlineExceeded says what a process does that has not ended after ``timeout`` seconds.
        """

    async def thaw_cgroup(self, path: str) -> None:
        """Let the processes in the cgroup and below it run that were frozen; a missing cgroup has none."""

    async def cgroup_oom_kills(self, path: str) -> int:
        """Count the cgroup's processes that were killed for want of memory; a missing cgroup has none."""

    async def remove_cgroup(self, path: str) -> None:
        """Remove the cgroup and everything below it, in all hierarchies; missing is no error.

        HostError (EBUSY) says what a process in it does that has not ended within some seconds.
        """
