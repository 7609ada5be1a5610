"""The ``oci`` handler: Linux containers, by any runtime whose command line is compatible with runc.

The runtime must implement ``create``, ``start``, ``state``, ``delete``, ``exec`` and ``update``, and can
implement ``features`` and ``checkpoint``. The executor itself signals processes and waits for their ends by
pidfds, instead of running ``kill`` and a ``delete`` that polls.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ToolError,
)
from noderuntime.node.executor.base import ExecResult, Features, RuntimeCommand, Traits
from noderuntime.node.executor.command import OciCommand
from noderuntime.node.executor.execs import Execs, Found, Target
from noderuntime.node.host.base import Conversation, Host, ProcessRef, Program
from noderuntime.node.host.cgroup_names import scope_path

_KILL_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class ContainerState:
    """The state of a container, from its runtime."""

    init: ProcessRef | None
    """Its first process, or None if that has ended."""
    cgroup: str
    """The path of its cgroup, or ``/`` if it has no cgroup of its own."""

    def own_cgroup(self) -> str:
        """Return the cgroup's path. Internal if the container is in a cgroup of other processes."""
        if self.cgroup == "/":
            raise Internal("the container has no cgroup of its own")
        return self.cgroup


class OciExecutor:
    """See :class:`noderuntime.node.executor.base.Executor`."""

    traits = Traits()
    _directory = "oci"
    """The subdirectory of the run directory for the runtime's state."""

    def __init__(self, name: str, host: Host, binary: Path, run_dir: Path, *, systemd_cgroup: bool) -> None:
        self.name = name
        self._host = host
        self._root = run_dir / self._directory
        # With --log, runc writes errors to stderr as plain text. The copy in the log is discarded.
        flags = ["--root", str(self._root), "--log", "/dev/null"]
        self._systemd_cgroup = systemd_cgroup
        if systemd_cgroup:
            flags.append("--systemd-cgroup")
        self._oci = OciCommand(host, binary, flags)
        self._execs = Execs(self._oci, run_dir / "exec")

    async def probe(self) -> Features:
        """Return the version and the ``features``. A runtime without that verb has no optional features."""
        version = (await self._oci.call("--version")).decode(errors="replace").partition("\n")[0]
        try:
            features = await self._oci.query("features")
        except ToolError:
            features = {}
        linux = features.get("linux", {})
        return Features(
            version=version.rpartition(" ")[2] or "unknown",
            user_namespaces="user" in linux.get("namespaces", ())
            and bool(linux.get("mountExtensions", {}).get("idmap", {}).get("enabled")),
            recursive_read_only_mounts="rro" in features.get("mountOptions", ()),
        )

    def monitor_runtime(self, container_id: str, sandbox_id: str, *, is_root: bool) -> RuntimeCommand:
        """Return the runtime itself."""
        return RuntimeCommand(self._oci.binary, self._oci.flags)

    def adapt_spec(self, spec: dict[str, Any], sandbox_id: str, *, is_root: bool) -> None:
        """Disable crun's cgroup below the container's scope, because limits and stats use the scope."""
        if self._systemd_cgroup:
            spec.setdefault("annotations", {})["run.oci.systemd.subgroup"] = ""

    async def start(self, container_id: str, sandbox_id: str, *, is_root: bool) -> None:
        """Start a created container with ``start``."""
        await self._oci.call("start", container_id)

    async def kill(
        self, container_id: str, sandbox_id: str, signo: int, *, process: ProcessRef | None = None
    ) -> bool:
        """Signal the first process, from the ledger or else from the runtime's state."""
        if process is None:
            state = await self._state(container_id)
            process = state.init if state else None
        return process is not None and await self._host.signal(process, signo)

    async def has_state(self, container_id: str) -> bool:
        """Return whether the container has a directory below ``--root``."""
        return await FILES.run((self._root / container_id).exists)

    async def delete(self, container_id: str, sandbox_id: str) -> None:
        """Kill the container's processes, wait for their ends, and remove its state and its cgroup."""
        try:
            state = await self._state(container_id)
        except DataLoss:
            state = None
        if state is None:
            await self._delete_without_state(container_id)
            return
        await self._end(state)
        await self._oci.call("delete", container_id)

    async def exec_sync(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, timeout: float | None
    ) -> ExecResult:
        """Run a process with ``exec``."""
        return await self._execs.run(self._target(container_id), process, timeout=timeout)

    async def exec(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, stdin: bool
    ) -> Program:
        """Start a process with ``exec``, which runs as long as the process."""
        started = await self._execs.start(self._target(container_id), process, stdin=stdin)
        return started.program

    async def connect(self, sandbox_id: str, netns: Path | None, port: int) -> Conversation:
        """Connect from a socket in the pod's network namespace."""
        return await self._host.connect(netns, port)

    async def update(self, container_id: str, sandbox_id: str, resources: Mapping[str, Any]) -> None:
        """Set ``linux.resources`` with ``update``."""
        await self._oci.call("update", "--resources", "-", container_id, stdin=json.dumps(resources).encode())

    async def checkpoint(
        self, container_id: str, sandbox_id: str, directory: Path, *, timeout: float
    ) -> None:
        """Run ``checkpoint``, which runs CRIU. Both are killed at the timeout."""
        if shutil.which("criu") is None:
            raise FailedPrecondition("a checkpoint needs CRIU: install the program criu on this node")
        arguments = ["--leave-running", "--tcp-established", "--file-locks"]
        arguments += ["--image-path", str(directory / "checkpoint"), "--work-path", str(directory)]
        await self._oci.call("checkpoint", *arguments, container_id, timeout=timeout)

    async def pids(self, container_id: str, sandbox_id: str) -> Sequence[int]:
        """Return the PIDs in the container's cgroup."""
        state = await self._state(container_id)
        return [] if state is None else await self._host.cgroup_pids(state.own_cgroup())

    async def _delete_without_state(self, container_id: str) -> None:
        """Remove a container without usable state, which usually comes from an interrupted ``create``."""
        if await self.has_state(container_id):
            await self._oci.run("delete", "--force", container_id)
            await self._host.remove_tree(self._root / container_id)

    async def _end(self, state: ContainerState) -> None:
        """Kill the processes of a container, and wait for their ends."""
        if state.cgroup != "/":
            await self._host.empty_cgroup(state.own_cgroup(), timeout=_KILL_TIMEOUT)
        init = state.init
        if init is None or not await self._host.signal(init, signal.SIGKILL):
            return
        if not await self._host.wait(init, timeout=_KILL_TIMEOUT):
            raise DeadlineExceeded(f"{_KILL_TIMEOUT:g} s after SIGKILL, {await self._host.stuck(init)}")

    async def _state(self, container_id: str) -> ContainerState | None:
        """Return the state of a container, or None if the runtime has none. DataLoss if it is damaged."""
        done = await self._oci.run("state", container_id)
        if done.returncode != 0:
            return None
        try:
            state = json.loads(done.stdout)
            spec = json.loads(await FILES.run(Path(state["bundle"], "config.json").read_bytes))
            pid, cgroup = int(state.get("pid") or 0), str(spec["linux"]["cgroupsPath"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataLoss(f"{self.name}'s state of {container_id} is damaged") from error
        path = scope_path(cgroup) if self._systemd_cgroup else cgroup
        init = await self._host.process(pid) if pid > 0 and state.get("status") != "stopped" else None
        if init is not None and path != "/" and pid not in await self._host.cgroup_pids(path):
            init = None  # it has ended since, and another process has its PID
        return ContainerState(init, path)

    def _target(self, container_id: str) -> Target:
        async def identify(pid: int) -> Found:
            process = await self._host.process(pid)
            return Found(lambda: self._kill_process(container_id, process), lambda: self._ended(process))

        return Target(
            arguments=lambda spec, pidfile: ("--process", spec, "--pid-file", pidfile, container_id),
            identify=identify,
        )

    async def _ended(self, process: ProcessRef | None) -> None:
        if process is not None:
            await self._host.wait(process, timeout=math.inf)

    async def _kill_process(self, container_id: str, process: ProcessRef | None) -> None:
        """Kill those of a process and its descendants that are in the container's cgroup."""
        state = await self._state(container_id)
        if state is not None and process is not None:
            await self._host.kill_tree(process, cgroup=state.own_cgroup())
