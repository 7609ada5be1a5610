"""The implementation of the host's protocol: each method calls the module that implements it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Literal

from noderuntime.core.blocking import CGROUPS, apart
from noderuntime.node.host import addresses as interfaces
from noderuntime.node.host import (
    connect,
    converse,
    launch,
    namespaces,
    network_lock,
    stdio,
    trees,
    userns_pins,
)
from noderuntime.node.host import fifo as fifos
from noderuntime.node.host import mount as mounts
from noderuntime.node.host import process as processes
from noderuntime.node.host.base import (
    Address,
    Completed,
    Conversation,
    Launched,
    Mount,
    NamespaceKind,
    ProcessRef,
    Program,
    UserNamespace,
)
from noderuntime.node.host.cgroup import Cgroups
from noderuntime.node.host.process_watch import Watch
from noderuntime.node.host.spawn import Spawner


class LinuxHost:
    """See :class:`noderuntime.node.host.base.Host`, which documents each method."""

    def __init__(self) -> None:
        self._spawner = Spawner()
        self._cgroups = Cgroups()

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
        """Run a program to its end."""
        return await self._spawner.run(
            argv,
            timeout=timeout,
            stdin=stdin,
            env=env,
            cwd=cwd,
            output_limit=output_limit,
            pass_fds=pass_fds,
        )

    async def launch(
        self,
        argv: Sequence[str],
        *,
        gate: str,
        reply: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Launched:
        """Start a program that daemonizes."""
        return await launch.launch(self._spawner, argv, gate=gate, reply=reply, env=env, cwd=cwd)

    async def converse(self, argv: Sequence[str], *, stdin: bool, terminal: bool) -> Program:
        """Start a program and return it with its stdio."""
        return await converse.converse(self._spawner, argv, stdin=stdin, terminal=terminal)

    async def connect(self, netns: Path | None, port: int) -> Conversation:
        """Connect to a TCP port of localhost."""
        return await connect.connect(netns, port)

    async def mount(self, mount: Mount) -> None:
        """Mount a filesystem."""
        await mounts.mount(mount)

    async def unmount(self, target: Path) -> None:
        """Lazily unmount all mounts at a path."""
        await mounts.unmount(target)

    async def mounted(self, paths: Collection[Path]) -> set[Path]:
        """Return the paths that are mount points."""
        return await mounts.mounted(paths)

    async def pin_namespaces(
        self,
        pins: Mapping[NamespaceKind, Path],
        *,
        hostname: str | None = None,
        sysctls: Mapping[str, str] | None = None,
        user: UserNamespace | None = None,
    ) -> None:
        """Create namespaces and pin each at its path."""
        if user is None:
            await namespaces.pin_namespaces(pins, hostname=hostname, sysctls=sysctls)
        else:
            await userns_pins.pin_namespaces(self._spawner, user, pins, hostname=hostname, sysctls=sysctls)

    async def unpin_namespaces(self, pins: Sequence[Path]) -> None:
        """Unmount and remove the pins."""
        await namespaces.unpin_namespaces(pins)

    async def set_sysctls(self, pin: Path, sysctls: Mapping[str, str]) -> None:
        """Write sysctls in a pinned network namespace."""
        await namespaces.set_sysctls(pin, sysctls)

    async def remove_network_lock(self, pin: Path) -> None:
        """Remove the rules of a killed CRIU."""
        await network_lock.remove_network_lock(self.run, pin)

    async def add_addresses(self, pin: Path, interface: str, addresses: Sequence[Address]) -> None:
        """Add the addresses that an interface lacks."""
        await interfaces.add_addresses(pin, interface, addresses)

    async def process(self, pid: int, *, names: str = "") -> ProcessRef | None:
        """Return the identity of a running process."""
        if not names:
            return processes.identify(pid)
        what = f"read the command line of process {pid}"
        return await apart(lambda: processes.identify(pid, names), what=what, subject=what, abandon=True)

    async def signal(self, process: ProcessRef, signo: int, *, cgroup: str | None = None) -> bool:
        """Send a signal through a pidfd."""
        if cgroup is not None and process.pid not in await self.cgroup_pids(cgroup):
            return False
        return processes.signal(process, signo)

    async def wait(self, process: ProcessRef, *, timeout: float) -> bool:
        """Wait for the end of a process."""
        return await processes.wait(process, timeout)

    def watch(self, process: ProcessRef, on_end: Callable[[], None]) -> Watch:
        """Watch for the end of a process."""
        return Watch(process, on_end)

    async def processes_with(self, *arguments: str) -> list[ProcessRef]:
        """Return the processes with given arguments."""
        what = "read the command lines of all processes"
        return await apart(
            lambda: processes.with_arguments(*arguments), what=what, subject=what, abandon=True
        )

    async def stuck(self, process: ProcessRef) -> str:
        """Describe a process that does not end."""
        return processes.stuck(process)

    async def give_stdio(self, process: ProcessRef, uid: int) -> None:
        """Change the owner of a process's pipes."""
        stdio.give_stdio(process, uid)

    async def read_fifo(self, fifo: Path, writer: ProcessRef, *, timeout: float) -> bool:
        """Open a fifo and wait for its writer."""
        return await fifos.read_once(fifo, writer, timeout)

    async def kill_tree(self, process: ProcessRef, *, cgroup: str | None = None) -> None:
        """SIGKILL a process and its descendants."""
        if cgroup is None:
            processes.kill_tree(process)
        elif process.pid in await self.cgroup_pids(cgroup):
            tree = processes.stop_tree(process)
            members = {process.pid, *await self.cgroup_pids(cgroup)}
            for member in tree:
                if member.pid in members:
                    processes.signal(member, SIGKILL)

    async def remove_tree(self, path: Path) -> None:
        """Remove a directory tree."""
        await trees.remove_tree(path)

    def cgroup_version(self) -> Literal[1, 2]:
        """Return the version of the hierarchy that has the memory controller."""
        return self._cgroups.version

    async def make_cgroup(self, path: str) -> None:
        """Create a cgroup."""
        await CGROUPS.run(self._cgroups.make, path)

    async def join_cgroup(self, path: str, pid: int) -> None:
        """Move a process into a cgroup."""
        await CGROUPS.run(self._cgroups.join, path, pid)

    async def join_hybrid_cgroup(self, path: str, pid: int) -> None:
        """Move a process into a cgroup of the v2 hierarchy beside those of v1."""
        await CGROUPS.run(self._cgroups.join_hybrid, path, pid)

    async def cgroup_pids(self, path: str) -> list[int]:
        """Return the PIDs in a cgroup and below it."""
        return await CGROUPS.run(self._cgroups.pids, path)

    async def kill_cgroup(self, path: str) -> None:
        """SIGKILL the processes in a cgroup and below it."""
        await CGROUPS.run(self._cgroups.kill, path)

    async def empty_cgroup(self, path: str, *, timeout: float) -> None:
        """Kill the processes in a cgroup until there are none."""
        await self._cgroups.empty(path, timeout)

    async def thaw_cgroup(self, path: str) -> None:
        """Thaw a cgroup."""
        await CGROUPS.run(self._cgroups.thaw, path)

    async def cgroup_oom_kills(self, path: str) -> int:
        """Return the number of OOM kills in a cgroup."""
        return await CGROUPS.run(self._cgroups.oom_kills, path)

    async def remove_cgroup(self, path: str) -> None:
        """Remove a cgroup and the cgroups below it."""
        await self._cgroups.remove(path)
