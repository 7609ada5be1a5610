"""The ``oci`` handler: Linux containers, by any runtime with the command line that runc has made usual.

Asked for are ``create``, ``start``, ``state``, ``delete``, ``exec``, ``update`` with its options, and
``features`` where there is such a verb. Signals are sent and ends are awaited here, by pidfds, not by
``kill`` and a runtime that sleeps in a loop.
"""

from __future__ import annotations

import json
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
from noderuntime.node.executor.execs import Execs, Kill, Target
from noderuntime.node.host.base import Conversation, Host, ProcessRef, Program
from noderuntime.node.host.cgroup_names import scope_path

_KILL_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Known:
    """What a runtime knows of a container."""

    init: ProcessRef | None
    """Its first process; None when that is known to have ended."""
    cgroup: str
    """The path of its cgroup, ``/`` where it has none of its own."""

    def own_cgroup(self) -> str:
        """Return the cgroup; Internal where there is none, for then it is in somebody else's."""
        if self.cgroup == "/":
            raise Internal("the container has no cgroup of its own")
        return self.cgroup


class OciExecutor:
    """See :class:`noderuntime.node.executor.base.Executor`."""

    traits = Traits()
    _directory = "oci"
    """Below the run directory, where the runtime keeps its state."""

    def __init__(self, name: str, host: Host, binary: Path, run_dir: Path, *, systemd_cgroup: bool) -> None:
        self.name = name
        self._host = host
        self._root = run_dir / self._directory
        # To /dev/null goes the copy; with a log set, errors come on stderr as plain text.
        flags = ["--root", str(self._root), "--log", "/dev/null"]
        self._systemd_cgroup = systemd_cgroup
        if systemd_cgroup:
            flags.append("--systemd-cgroup")
        self._oci = OciCommand(host, binary, flags)
        self._execs = Execs(self._oci, run_dir / "exec")

    async def probe(self) -> Features:
        """Ask for the version and for ``features``; a runtime too old for these promises nothing."""
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
        """The monitor runs the runtime itself."""
        return RuntimeCommand(self._oci.binary, self._oci.flags)

    def adapt_spec(self, spec: dict[str, Any], sandbox_id: str, *, is_root: bool) -> None:
        """Have crun make no cgroup of its own in the container's scope, where nobody looks for limits."""
        if self._systemd_cgroup:
            spec.setdefault("annotations", {})["run.oci.systemd.subgroup"] = ""

    async def start(self, container_id: str, sandbox_id: str, *, is_root: bool) -> None:
        """Start what ``create`` prepared."""
        await self._oci.call("start", container_id)

    async def kill(
        self, container_id: str, sandbox_id: str, signo: int, *, process: ProcessRef | None = None
    ) -> bool:
        """Signal the first process: the ledger's, or the one that the runtime knows."""
        if process is None:
            known = await self._known(container_id)
            process = known.init if known else None
        return process is not None and await self._host.signal(process, signo)

    async def holds(self, container_id: str) -> bool:
        """Look for the container's directory below ``--root``."""
        return await FILES.run((self._root / container_id).exists)

    async def delete(self, container_id: str, sandbox_id: str) -> None:
        """Remove the runtime's state and the cgroup; what still runs is killed and awaited before."""
        try:
            known = await self._known(container_id)
        except DataLoss:
            known = None
        if known is None:
            await self._give_up(container_id)
            return
        await self._end(known)
        await self._oci.call("delete", container_id)

    async def exec_sync(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, timeout: float | None
    ) -> ExecResult:
        """Run a process with ``exec``."""
        return await self._execs.run(self._target(container_id), process, timeout=timeout)

    async def exec(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, stdin: bool
    ) -> Program:
        """Start a process with ``exec``, which stays as long as it does."""
        started = await self._execs.start(self._target(container_id), process, stdin=stdin)
        return started.program

    async def connect(self, sandbox_id: str, netns: Path | None, port: int) -> Conversation:
        """Connect from a socket that belongs to the pod's network namespace."""
        return await self._host.connect(netns, port)

    async def update(self, container_id: str, sandbox_id: str, resources: Mapping[str, Any]) -> None:
        """Set ``linux.resources`` with ``update``."""
        await self._oci.call("update", "--resources", "-", container_id, stdin=json.dumps(resources).encode())

    async def checkpoint(
        self, container_id: str, sandbox_id: str, directory: Path, *, timeout: float
    ) -> None:
        """Have ``checkpoint`` run CRIU, which ends with it at the timeout."""
        if shutil.which("criu") is None:
            raise FailedPrecondition("a checkpoint needs CRIU, and this node has no program criu")
        arguments = ["--leave-running", "--tcp-established", "--file-locks"]
        arguments += ["--image-path", str(directory / "checkpoint"), "--work-path", str(directory)]
        await self._oci.call("checkpoint", *arguments, container_id, timeout=timeout)

    async def pids(self, container_id: str, sandbox_id: str) -> Sequence[int]:
        """List the processes of the container's cgroup."""
        known = await self._known(container_id)
        return [] if known is None else await self._host.cgroup_pids(known.own_cgroup())

    async def _give_up(self, container_id: str) -> None:
        """Remove what the runtime does not know, or cannot say: it was not created to the end, as a rule."""
        if await self.holds(container_id):
            await self._oci.run("delete", "--force", container_id)
            await self._host.remove_tree(self._root / container_id)

    async def _end(self, known: Known) -> None:
        """Kill what the runtime knows of a container, and wait for its end."""
        if known.cgroup != "/":
            await self._host.empty_cgroup(known.own_cgroup(), timeout=_KILL_TIMEOUT)
        init = known.init
        if init is None or not await self._host.signal(init, signal.SIGKILL):
            return
        if not await self._host.wait(init, timeout=_KILL_TIMEOUT):
            raise DeadlineExceeded(f"{await self._host.stuck(init)} {_KILL_TIMEOUT:g} s after SIGKILL")

    async def _known(self, container_id: str) -> Known | None:
        """Return what the runtime knows of a container, None for an unknown one; DataLoss if damaged."""
        done = await self._oci.run("state", container_id)
        if done.returncode != 0:
            return None
        try:
            state = json.loads(done.stdout)
            spec = json.loads(await FILES.run(Path(state["bundle"], "config.json").read_bytes))
            pid, cgroup = int(state.get("pid") or 0), str(spec["linux"]["cgroupsPath"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataLoss(f"{self.name}'s state of {container_id} is damaged") from error
        running = pid > 0 and state.get("status") != "stopped"
        path = scope_path(cgroup) if self._systemd_cgroup else cgroup
        return Known(await self._host.process(pid) if running else None, path)

    def _target(self, container_id: str) -> Target:
        async def identify(pid: int) -> Kill:
            process = await self._host.process(pid)
            return lambda: self._kill_process(container_id, process)

        return Target(
            arguments=lambda spec, pidfile: ("--process", spec, "--pid-file", pidfile, container_id),
            identify=identify,
        )

    async def _kill_process(self, container_id: str, process: ProcessRef | None) -> None:
        """Kill a process and its descendants, as far as they are in the container's cgroup."""
        known = await self._known(container_id)
        if known is not None and process is not None:
            await self._host.kill_tree(process, cgroup=known.own_cgroup())
