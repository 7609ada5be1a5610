"""A node in memory: its objects, and the host that creates and removes them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from noderuntime.core.errors import Internal
from noderuntime.node.host.base import Address, Mount, NamespaceKind, ProcessRef, UserNamespace
from noderuntime.node.monitor.base import Exit


class Dead(BaseException):
    """The daemon was killed: nothing that it was doing goes on, and nothing is undone."""


@dataclass
class Running:
    """The state of a container in a fake runtime."""

    process: ProcessRef
    monitor: ProcessRef
    started: bool = False


@dataclass(eq=False)
class FakeWatching:
    """A process whose end is reported once."""

    world: World
    process: ProcessRef
    on_end: Callable[[], None]

    def report(self) -> None:
        self.close()
        asyncio.get_running_loop().call_soon(self.on_end)

    def close(self) -> None:
        if self in self.world.watching:
            self.world.watching.remove(self)


@dataclass
class World:
    """The objects on the fake node."""

    mounts: set[Path] = field(default_factory=set)
    pins: set[Path] = field(default_factory=set)
    sysctls: dict[str, str] = field(default_factory=dict)
    """The sysctls that were set in namespaces of pods."""
    cgroups: set[str] = field(default_factory=set)
    snapshots: set[str] = field(default_factory=set)
    volumes: dict[str, list[Path]] = field(default_factory=dict)
    attached: set[str] = field(default_factory=set)
    deleted: dict[str, bytes] = field(default_factory=dict)
    """The network configuration of the last DEL of each sandbox."""
    runtime: dict[str, Running] = field(default_factory=dict)
    exits: dict[str, Exit] = field(default_factory=dict)
    oom: set[str] = field(default_factory=set)
    """Containers whose monitor recorded an OOM kill."""
    oom_kills: dict[str, int] = field(default_factory=dict)
    """The kernel's counts of OOM kills, by path of the cgroup."""
    processes: dict[ProcessRef, asyncio.Event] = field(default_factory=dict)
    ends_after: dict[str, bool] = field(default_factory=dict)
    """Steps after which the container's process ends, and whether its monitor writes that down."""
    watching: list[FakeWatching] = field(default_factory=list)
    signals: list[tuple[str, int]] = field(default_factory=list)
    stubborn: set[str] = field(default_factory=set)
    """Containers that ignore all signals except SIGKILL."""
    frozen: set[str] = field(default_factory=set)
    """Containers in a frozen cgroup."""
    locked: set[Path] = field(default_factory=set)
    """Network namespaces that CRIU has locked."""
    stuck: set[ProcessRef] = field(default_factory=set)
    """Processes that no container's signal ends; a wait for one is over at once."""
    trace: list[str] = field(default_factory=list)
    fail: set[str] = field(default_factory=set)
    """Steps that raise; ``step!`` fails after it has taken effect."""
    raises: dict[str, Exception] = field(default_factory=dict)
    """Errors of steps of one object (key: ``detach ID``)."""
    hold: dict[str, asyncio.Event] = field(default_factory=dict)
    """Steps that wait, of all objects or of one (``detach ID``)."""
    held: asyncio.Event = field(default_factory=asyncio.Event)
    dead: bool = False
    _next_pid: int = 1000

    async def step(self, name: str, of: str = "") -> None:
        """Run a step of an object: wait if a test holds it, and raise if a test lets it fail."""
        if self.dead:
            raise Dead
        self.trace.append(name)
        gate = self.hold.get(name) or self.hold.get(f"{name} {of}")
        if gate is not None:
            self.held.set()
            await gate.wait()
        await asyncio.sleep(0)
        if name in self.fail:
            raise Internal(f"{name} fails")
        if f"{name} {of}" in self.raises:
            raise self.raises[f"{name} {of}"]

    def after(self, name: str, container_id: str = "") -> None:
        """Raise after the step took effect, or end the container, if a test requests it."""
        if name in self.ends_after:
            self.exit(container_id, 1, seen=self.ends_after[name])
        if f"{name}!" in self.fail:
            raise Internal(f"{name} fails late")

    def spawn(self) -> ProcessRef:
        """Start a process."""
        self._next_pid += 1
        process = ProcessRef(self._next_pid, 7)
        self.processes[process] = asyncio.Event()
        return process

    def end(self, process: ProcessRef) -> None:
        """End a process, if it is there."""
        ended = self.processes.pop(process, None)
        if ended is not None:
            ended.set()
        for watching in [one for one in self.watching if one.process == process]:
            watching.report()

    def exit(self, container_id: str, code: int = 0, *, seen: bool = True) -> None:
        """End a container's process. Its monitor records the exit, unless it dies too (not ``seen``)."""
        running = self.runtime.get(container_id)
        if running is None or running.process not in self.processes or running.process in self.stuck:
            return
        hangs = running.monitor in self.stuck
        if seen and running.monitor in self.processes and not hangs:
            self.exits[container_id] = Exit(container_id, code, time.time_ns())
        self.end(running.process)
        if not hangs:
            self.end(running.monitor)

    def power_cut(self) -> None:
        """Reboot: only what is on disk stays."""
        for process in list(self.processes):
            self.end(process)
        for kind in (self.mounts, self.pins, self.cgroups, self.oom):
            kind.clear()
        self.runtime.clear()
        self.exits.clear()

    def left(self) -> dict[str, object]:
        """Return the objects that exist, by kind."""
        kinds = ("mounts", "pins", "cgroups", "snapshots", "attached", "runtime", "exits", "processes")
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}


class FakeHost:
    """See noderuntime.node.host.base.Host."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def mount(self, mount: Mount) -> None:
        await self.world.step("mount")
        self.world.mounts.add(mount.target)
        self.world.after("mount")

    async def unmount(self, target: Path) -> None:
        await self.world.step("unmount")
        self.world.mounts.discard(target)

    async def mounted(self, paths: Collection[Path]) -> set[Path]:
        return set(paths) & (self.world.pins | self.world.mounts)

    async def pin_namespaces(
        self,
        pins: Mapping[NamespaceKind, Path],
        *,
        hostname: str | None = None,
        sysctls: Mapping[str, str] | None = None,
        user: UserNamespace | None = None,
    ) -> None:
        await self.world.step("pin")
        self.world.sysctls |= sysctls or {}
        self.world.pins |= set(pins.values()) | ({user.pin} if user else set())
        self.world.after("pin")

    async def unpin_namespaces(self, pins: Sequence[Path]) -> None:
        await self.world.step("unpin")
        self.world.pins -= set(pins)

    async def set_sysctls(self, pin: Path, sysctls: Mapping[str, str]) -> None:
        if sysctls:
            await self.world.step("set sysctls")
            assert pin in self.world.pins
            self.world.sysctls |= sysctls

    async def remove_network_lock(self, pin: Path) -> None:
        await self.world.step("remove network lock")
        self.world.locked.discard(pin)

    async def add_addresses(self, pin: Path, interface: str, addresses: Sequence[Address]) -> None:
        pass

    async def process(self, pid: int, *, names: str = "") -> ProcessRef | None:
        running = self.world.runtime.get(names)
        candidates = (running.process, running.monitor) if running else () if names else self.world.processes
        return next((one for one in candidates if one.pid == pid and one in self.world.processes), None)

    async def wait(self, process: ProcessRef, *, timeout: float) -> bool:
        ended = self.world.processes.get(process)
        if ended is None:
            return True
        if process in self.world.stuck:
            return False
        try:
            await asyncio.wait_for(ended.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def watch(self, process: ProcessRef, on_end: Callable[[], None]) -> FakeWatching:
        watching = FakeWatching(self.world, process, on_end)
        self.world.watching.append(watching)
        if process not in self.world.processes:
            watching.report()
        return watching

    async def give_stdio(self, process: ProcessRef, uid: int) -> None:
        self.world.trace.append(f"give stdio to {uid}")

    async def processes_with(self, *arguments: str) -> list[ProcessRef]:
        await self.world.step("look for processes")
        return []

    async def stuck(self, process: ProcessRef) -> str:
        return f"process {process.pid} is in state D, in nfs_wait"

    async def kill_tree(self, process: ProcessRef) -> None:
        self.world.end(process)

    async def remove_tree(self, path: Path) -> None:
        await self.world.step("remove_tree")
        assert not any(mount.is_relative_to(path) for mount in self.world.mounts), "still mounted"
        shutil.rmtree(path, ignore_errors=True)

    def cgroup_version(self) -> Literal[1, 2]:
        return 2

    async def cgroup_pids(self, path: str) -> list[int]:
        return []

    async def kill_cgroup(self, path: str) -> None:
        await self.world.step("kill_cgroup")

    async def empty_cgroup(self, path: str, *, timeout: float) -> None:
        await self.world.step("empty_cgroup")

    async def thaw_cgroup(self, path: str) -> None:
        await self.world.step("thaw")
        self.world.frozen.discard(path.rpartition("/")[2])

    async def cgroup_oom_kills(self, path: str) -> int:
        return self.world.oom_kills.get(path, 0)

    async def remove_cgroup(self, path: str) -> None:
        await self.world.step("remove_cgroup")
        self.world.cgroups.discard(path)
