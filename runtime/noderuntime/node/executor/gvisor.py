"""The ``gvisor`` handler: pods with their own kernel, run by ``runsc``.

A pod is one sandbox, which is a process of the node and is created with the root container. The other
containers run inside the sandbox and have no process on the node. A small shell stands in for each of them
(``gvisor_stand_in.sh``): it holds the stdio and exits with the container's exit status, as conmon expects.

All calls for a sandbox need the same global flags and the same runsc: gVisor does not guarantee that the
state's format and the sandbox's interface are compatible between versions. An annotation of the sandbox
records both, so that they survive an upgrade of the node. The state of all sandboxes is in one root
directory.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    ToolError,
    Unimplemented,
    host_error,
)
from noderuntime.core.tasks import Scope, first
from noderuntime.node.executor.base import ExecResult, Features, RuntimeCommand, Traits
from noderuntime.node.executor.command import TIMEOUT, OciCommand
from noderuntime.node.executor.execs import Execs, Found, Target
from noderuntime.node.executor.gvisor_port import SandboxConnection, connecting_process
from noderuntime.node.executor.gvisor_spec import translate
from noderuntime.node.host.base import Conversation, Host, ProcessRef, Program
from noderuntime.node.host.cgroup_names import scope_path
from noderuntime.node.host.inotify import CLOSE_WRITE, DirectoryWatch
from noderuntime.node.host.messages import one_line
from noderuntime.node.host.process import read_pid

_STAND_IN = Path(__file__).with_name("gvisor_stand_in.sh")
_TYPE = "io.kubernetes.cri.container-type"
_SANDBOX = "io.kubernetes.cri.sandbox-id"
_RUNSC = "noderuntime.dev/runsc"
"""Annotation of a sandbox: runsc's path and global flags, as JSON."""
_START = b"start\n"
_KILL_TIMEOUT = 10.0
_ENDING = 2.0
"""How long to wait for the end of a container that can no longer be signalled."""


class GvisorExecutor:
    """See :class:`noderuntime.node.executor.base.Executor`."""

    traits = Traits(root_container=True, own_kernel=True, cdi_devices=False)

    def __init__(
        self,
        name: str,
        host: Host,
        binary: Path,
        run_dir: Path,
        busybox: Path,
        *,
        systemd_cgroup: bool,
        chosen: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._host = host
        self._root = run_dir / "runsc"
        self._bundles = run_dir / "containers"
        self._busybox = Path(shutil.which(busybox) or busybox)
        flags = [
            f"--root={self._root}",
            *chosen,
            "--network=sandbox",
            "--overlay2=none",  # a writable layer in the sandbox's memory would escape stats and limits
            "--oci-seccomp",  # apply the pod's seccomp profiles, which runsc ignores by default
            "--allow-suid",  # as on Linux: no_new_privs is what disables set-user-ID programs
            "--allow-flag-override",  # only by annotations of noderuntime: the pod's are not passed on
        ]
        # On cgroup v1 runsc creates the cgroups itself, in the directories that systemd would use.
        self._slices_as_paths = systemd_cgroup and host.cgroup_version() == 1
        if systemd_cgroup and not self._slices_as_paths:
            flags.append("--systemd-cgroup")
        self._runsc = OciCommand(host, binary, flags)
        self._execs = Execs(self._runsc, run_dir / "exec")

    async def probe(self) -> Features:
        """Return the version, from the first line of ``runsc --version``, and the fixed features."""
        first, _, _ = (await self._runsc.call("--version")).decode(errors="replace").partition("\n")
        return Features(
            version=first.rpartition(" ")[2] or "unknown",
            user_namespaces=False,
            recursive_read_only_mounts=True,
        )

    def monitor_runtime(self, container_id: str, sandbox_id: str, *, is_root: bool) -> RuntimeCommand:
        """Return runsc for the root container, and the stand-in for the other containers."""
        if is_root:
            return RuntimeCommand(self._runsc.binary, self._runsc.flags)
        sandbox = str(self._bundles / sandbox_id / "pidfile")
        creator = self._runsc_of(sandbox_id)
        runsc = (str(creator.binary), *creator.flags)
        return RuntimeCommand(self._busybox, ("sh", str(_STAND_IN), str(self._busybox), sandbox, *runsc))

    def adapt_spec(self, spec: dict[str, Any], sandbox_id: str, *, is_root: bool) -> None:
        """Annotate the container's type and sandbox. Without a network namespace use the node's network."""
        translate(spec)
        annotations = spec.setdefault("annotations", {})
        annotations[_TYPE] = "sandbox" if is_root else "container"
        if is_root:
            annotations[_RUNSC] = json.dumps([str(self._runsc.binary), *self._runsc.flags])
        else:
            annotations[_SANDBOX] = sandbox_id
        if is_root and not any(one["type"] == "network" for one in spec["linux"]["namespaces"]):
            annotations["dev.gvisor.flag.network"] = "host"
        if self._slices_as_paths:
            spec["linux"]["cgroupsPath"] = scope_path(spec["linux"]["cgroupsPath"])

    async def start(self, container_id: str, sandbox_id: str, *, is_root: bool) -> None:
        """Start the sandbox, or make the container's stand-in start the container, and wait for the result.

        FailedPrecondition if the monitor has ended or the container is killed meanwhile, ToolError with the
        message of runsc if the start fails, DeadlineExceeded if it hangs.
        """
        if is_root:
            await self._runsc_of(sandbox_id).call("start", container_id)
            return
        bundle = self._bundles / container_id
        with DirectoryWatch.on(bundle, CLOSE_WRITE) as watch:
            stand_in = await self._stand_in(container_id)
            if stand_in is None or not _open_gate(bundle / "gate"):
                raise FailedPrecondition(f"the monitor of container {container_id} has ended")
            async with Scope() as scope:
                started = scope.start(_started(bundle, watch), name="await the start of a container")
                ended = scope.start(self._host.wait(stand_in, timeout=TIMEOUT), name="await a stand-in's end")
                await first(started, ended, timeout=TIMEOUT)
        code = _read_number(bundle / "started")
        if code is None and await self._host.process(stand_in.pid) != stand_in:
            raise FailedPrecondition(f"container {container_id} was killed while it was being started")
        if code is None:
            raise DeadlineExceeded(f"runsc start did not finish within {TIMEOUT:g} s")
        if code:
            raise ToolError("runsc", "start", code, _logged(bundle / "start.log"))

    async def kill(
        self, container_id: str, sandbox_id: str, signo: int, *, process: ProcessRef | None = None
    ) -> bool:
        """Signal the sandbox's process, or a container through runsc. Kill an unstarted container."""
        if container_id == sandbox_id and process is not None:
            return await self._host.signal(process, signo)
        return await self._end_unstarted(container_id, process) or await self._kill_inside(
            self._runsc_of(sandbox_id), container_id, signo, process
        )

    async def has_state(self, container_id: str) -> bool:
        """Return whether runsc has a state file of the container."""
        return await FILES.run(self._has_state_file, container_id)

    async def delete(self, container_id: str, sandbox_id: str) -> None:
        """Kill and remove a container, or the whole sandbox if it is the root container."""
        await self._end_unstarted(container_id)
        if await self.has_state(container_id):
            await self._runsc_of(sandbox_id).call("delete", "--force", container_id)
        await FILES.run(self._remove_locks, sandbox_id)
        if not await FILES.run(self._has_state_file, "*"):
            # The empty network namespace of all gofers. runsc pins it, and creates it again if it is missing.
            await self._host.unpin_namespaces([self._root / "null-netns"])

    async def exec_sync(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, timeout: float | None
    ) -> ExecResult:
        """Run a process with ``runsc exec``."""
        return await self._execs.run(self._target(container_id, sandbox_id), process, timeout=timeout)

    async def exec(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, stdin: bool
    ) -> Program:
        """Start a process with ``runsc exec``, which runs as long as the process."""
        started = await self._execs.start(self._target(container_id, sandbox_id), process, stdin=stdin)
        return started.program

    async def connect(self, sandbox_id: str, netns: Path | None, port: int) -> Conversation:
        """Connect from inside the sandbox, whose network stack does not use the namespace's ``lo``."""
        program, kill = await self._execs.start(
            self._target(sandbox_id, sandbox_id), connecting_process(port), stdin=True
        )
        return SandboxConnection(program, port, kill)

    async def update(self, container_id: str, sandbox_id: str, resources: Mapping[str, Any]) -> None:
        """Set ``linux.resources`` with ``runsc update``."""
        await self._runsc_of(sandbox_id).call(
            "update", "--resources", "-", container_id, stdin=json.dumps(resources).encode()
        )

    async def checkpoint(
        self, container_id: str, sandbox_id: str, directory: Path, *, timeout: float
    ) -> None:
        """Raise Unimplemented: runsc can only checkpoint whole sandboxes."""
        raise Unimplemented(f"handler {self.name} offers no checkpoints of single containers")

    async def pids(self, container_id: str, sandbox_id: str) -> Sequence[int]:
        """Return no PIDs: containers of a sandbox have no processes on the node."""
        return ()

    def _runsc_of(self, sandbox_id: str) -> OciCommand:
        """Return the runsc that created a sandbox, or the configured one if that is no longer executable."""
        try:
            annotations = json.loads((self._bundles / sandbox_id / "config.json").read_bytes())["annotations"]
            binary, *flags = json.loads(annotations[_RUNSC])
        except (OSError, ValueError, KeyError, TypeError):  # no bundle, or the spec of an earlier version
            return self._runsc
        usable = os.access(binary, os.X_OK)
        return OciCommand(self._host, Path(binary), flags) if usable else self._runsc

    def _target(self, container_id: str, sandbox_id: str) -> Target:
        runsc = self._runsc_of(sandbox_id)

        async def identify(pid: int) -> Found:
            """Return the kill of a PID of the sandbox. runsc checks that it belongs to the container."""

            async def kill() -> None:
                await runsc.run("kill", "--pid", str(pid), container_id, "KILL")

            return Found(kill)

        return Target(
            arguments=lambda spec, pidfile: ("--process", spec, "--internal-pid-file", pidfile, container_id),
            identify=identify,
            runtime=runsc,
        )

    async def _kill_inside(
        self, runsc: OciCommand, container_id: str, signo: int, process: ProcessRef | None
    ) -> bool:
        """Signal a container through runsc. If that fails, False if its stand-in ends, else ToolError."""
        scope = ["--all"] if signo == signal.SIGKILL else []
        done = await runsc.run("kill", *scope, container_id, str(signo), timeout=_KILL_TIMEOUT)
        if done.returncode == 0:
            return True
        stand_in = process or await self._stand_in(container_id)
        if stand_in is not None and not await self._host.wait(stand_in, timeout=_ENDING):
            raise runsc.failure("kill", done)
        return False

    async def _end_unstarted(self, container_id: str, process: ProcessRef | None = None) -> bool:
        """Kill a container that has not started or is starting. False if it has started or ended.

        :meth:`delete` removes what that start has created in the sandbox.
        """
        bundle = self._bundles / container_id
        if (bundle / "started").exists() or not (bundle / "gate").exists():
            return False
        stand_in = process or await self._stand_in(container_id)
        if stand_in is None:
            return False
        await self._host.kill_tree(stand_in)
        return True

    async def _stand_in(self, container_id: str) -> ProcessRef | None:
        """Return the process that stands in for a container, or None if it has ended."""
        pid = await FILES.run(read_pid, self._bundles / container_id / "pidfile")
        return None if pid is None else await self._host.process(pid, names=container_id)

    def _has_state_file(self, container_id: str) -> bool:
        """Return whether runsc has a state file ``<container>_sandbox:<sandbox>.state`` (``*``: any)."""
        return any(self._root.glob(f"{container_id}_sandbox:*.state"))

    def _remove_locks(self, sandbox_id: str) -> None:
        """Remove the lock files of a sandbox that has no state files left.

        runsc leaves a lock file behind if another call reads the state of all containers during a delete.
        """
        if not any(self._root.glob(f"*_sandbox:{sandbox_id}.state")):
            for lock in self._root.glob(f"*_sandbox:{sandbox_id}.lock"):
                lock.unlink(missing_ok=True)


def _open_gate(gate: Path) -> bool:
    """Make the stand-in that reads from the gate start its container. False if the fifo has no reader."""
    try:
        fd = os.open(gate, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise host_error(f"open {gate}", error) from error
    try:
        os.write(fd, _START)
    finally:
        os.close(fd)
    return True


async def _started(bundle: Path, watch: DirectoryWatch) -> None:
    while _read_number(bundle / "started") is None:
        await watch.changes()


def _read_number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None


def _logged(file: Path) -> str:
    try:
        return one_line(file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
