"""Control groups: v1 (all hierarchies, including the v2 one in systemd's hybrid mode) and v2.

A path identifies the same group in all hierarchies. The kubelet creates the pods' groups
and sets their limits. This module creates containers' groups, and joins, lists, kills and removes groups.
"""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from typing import Literal

from noderuntime.core.blocking import CGROUPS
from noderuntime.core.errors import DeadlineExceeded, HostError, host_error
from noderuntime.node.host import cgroup_files as files
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.process import identify, signal, stuck, wait

ROOT = Path("/sys/fs/cgroup")
_LISTED_IN = ("memory", "pids", "systemd")
_REMOVE_DEADLINE = 5.0
_SETTLE = 0.01


def path_in_hierarchy(directory: str) -> str:
    """Return the path of a cgroup's directory, relative to the mount point of its hierarchy."""
    below = directory.removeprefix(str(ROOT)).lstrip("/")
    if (ROOT / "cgroup.controllers").exists():
        return "/" + below
    return "/" + below.partition("/")[2]


class Cgroups:
    """The cgroup hierarchies of this node."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self.version: Literal[1, 2] = 2 if (root / "cgroup.controllers").exists() else 1
        self.hierarchies = (root,) if self.version == 2 else tuple(_v1_hierarchies(root))
        self._freezers = tuple(
            one
            for one in self.hierarchies
            if "freezer" in one.name.split(",") or (one / "cgroup.controllers").exists()
        )
        self._making = threading.Lock()

    def controllers(self) -> frozenset[str]:
        """Return the names of the available controllers."""
        if self.version == 2:
            return frozenset((self._root / "cgroup.controllers").read_text(encoding="ascii").split())
        return frozenset(name for one in self.hierarchies for name in one.name.split(","))

    def swap_accounting(self) -> bool:
        """Return whether swap accounting is enabled, so that memory plus swap can be limited."""
        return self.version == 2 or (self._root / "memory/memory.memsw.limit_in_bytes").exists()

    def swap_file(self) -> bool:
        """Return whether groups have ``memory.swap.max``. The kernel can lack or disable it."""
        return self.version == 2 and any(self._root.glob("*/memory.swap.max"))

    def make(self, path: str) -> None:
        """Create the cgroup where it is missing."""
        with self._making:  # a new cpuset accepts processes only once the creating thread has filled it
            for hierarchy in self.hierarchies:
                _make(hierarchy, _below(hierarchy, path))

    def join(self, path: str, pid: int) -> None:
        """Create the cgroup where it is missing and move a process into it."""
        self.make(path)
        for hierarchy in self.hierarchies:
            files.join(_below(hierarchy, path), pid)

    def join_hybrid(self, path: str, pid: int) -> None:
        """Move a process into the existing cgroup of the v2 hierarchy beside those of v1, if there is one."""
        if self._root / "unified" in self.hierarchies:
            files.join(_below(self._root / "unified", path), pid)

    def pids(self, path: str) -> list[int]:
        """Return the PIDs in the cgroup and below it."""
        preferred = [self._root / name for name in _LISTED_IN]
        hierarchy = next((one for one in preferred if one in self.hierarchies), self.hierarchies[0])
        return _listed([_below(hierarchy, path)])

    def kill(self, path: str) -> list[ProcessRef]:
        """SIGKILL all processes in the cgroup and below it, in any hierarchy, and return them.

        A process that is forked meanwhile can survive, so the caller repeats the call until it returns none.
        """
        if not path.strip("/"):
            raise HostError(f"kill cgroup {path!r}", errno.EPERM, "it contains all processes of the node")
        groups = [_below(hierarchy, path) for hierarchy in self.hierarchies]
        members = _members(groups)
        if not members:
            return []
        self.thaw(path)  # a process that v1 has frozen ends only once it is thawed
        if not all(files.kill(group) for group in groups):
            for process in members:
                signal(process, SIGKILL)
        return members

    def thaw(self, path: str) -> None:
        """Thaw the cgroup and the cgroups below it. No error if it is missing."""
        for hierarchy in self._freezers:
            for group in files.tree(_below(hierarchy, path)):
                files.thaw(group)

    async def empty(self, path: str, timeout: float) -> None:
        """Kill the processes in the cgroup and below it until there are none, and wait for their ends.

        DeadlineExceeded, with a description of the process, if one has not ended after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while killed := await CGROUPS.run(self.kill, path):
            for process in killed:
                if not await wait(process, max(0.0, deadline - time.monotonic())):
                    raise DeadlineExceeded(f"{timeout:g} s after SIGKILL, {stuck(process)} (cgroup {path})")

    def oom_kills(self, path: str) -> int:
        """Return the number of OOM kills in the cgroup, 0 if it is missing."""
        group = _below(self._root if self.version == 2 else self._root / "memory", path)
        file = "memory.events" if self.version == 2 else "memory.oom_control"
        try:
            fields = dict(line.split() for line in (group / file).read_text(encoding="ascii").splitlines())
        except OSError:
            return 0
        return int(fields.get("oom_kill", 0))

    async def remove(self, path: str) -> None:
        """Remove the cgroup and the cgroups below it. Waits 5 s for processes in them to end."""
        deadline = time.monotonic() + _REMOVE_DEADLINE
        groups = [_below(hierarchy, path) for hierarchy in self.hierarchies]
        while busy := await CGROUPS.run(_remove_all, groups):
            left = deadline - time.monotonic()
            if left <= 0:
                raise HostError(f"remove cgroup {busy}", errno.EBUSY, _busy_reason(busy))
            await _emptied(busy, left)


def _remove_all(groups: Sequence[Path]) -> Path | None:
    """Remove trees of groups. Return the first group that is in use, or None if all are removed."""
    for group in (member for top in groups for member in files.tree(top)):
        try:
            group.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno == errno.EBUSY:
                return group
            raise host_error(f"remove cgroup {group}", error) from error
    return None


async def _emptied(group: Path, timeout: float) -> None:
    """Wait for the ends of the processes in the group, or 10 ms for the kernel if there are none."""
    running = _members([group])
    for process in running:
        await wait(process, timeout)
    if not running:
        await asyncio.sleep(_SETTLE)  # the kernel still releases the group, and reports no event for that


def _busy_reason(group: Path) -> str:
    """Return why a group cannot be removed."""
    return next((stuck(process) for process in _members([group])), "the kernel still uses it")


def _listed(groups: Iterable[Path]) -> list[int]:
    """Return the PIDs in trees of groups, each once."""
    members = (pid for top in groups for group in files.tree(top) for pid in files.pids(group))
    return list(dict.fromkeys(members))


def _members(groups: Sequence[Path]) -> list[ProcessRef]:
    """Return the identities of the processes in trees of groups.

    A PID can be reused by a process outside before it is identified. So only PIDs that are still listed
    afterwards count.
    """
    found = [process for pid in _listed(groups) if (process := identify(pid))]
    listed = _listed(groups) if found else ()
    return [process for process in found if process.pid in listed]


def _v1_hierarchies(root: Path) -> Iterator[Path]:
    """Yield the hierarchies below the root, each once: ``cpu`` can be a symlink to ``cpu,cpuacct``."""
    with suppress(FileNotFoundError):
        for entry in sorted(root.iterdir()):
            if not entry.is_symlink() and (entry / "cgroup.procs").exists():
                yield entry


def _below(hierarchy: Path, path: str) -> Path:
    return hierarchy / path.lstrip("/")


def _make(hierarchy: Path, group: Path) -> None:
    """Create the group and its parents. A v1 cpuset accepts no process until its files are filled."""
    if group == hierarchy or group.exists():
        return
    _make(hierarchy, group.parent)
    try:
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            file = group / name
            if hierarchy.name == "cpuset" and not file.read_bytes().strip():
                file.write_bytes((group.parent / name).read_bytes())
    except OSError as error:
        raise host_error(f"make cgroup {group}", error) from error
