"""The ``gvisor`` handler: pods with a kernel of their own, by ``runsc``.

A pod is one sandbox, a process of the node, made by the root container. Its other
containers live inside and have no process on the node: a small shell stands in for each
(``gvisor_stand_in.sh``), so that its monitor has stdio to hold and an exit status to keep.

Every call of a sandbox needs the same global flags, and the state of all lies in one root.
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
from noderuntime.node.executor.execs import Execs, Kill, Target
from noderuntime.node.executor.gvisor_port import SandboxConnection, connecting_process
from noderuntime.node.executor.gvisor_spec import translate
from noderuntime.node.host.base import Conversation, Host, ProcessRef, Program
from noderuntime.node.host.cgroup_names import scope_path
from noderuntime.node.host.inotify import CLOSE_WRITE, DirectoryWatch
from noderuntime.node.host.words import one_line

_STAND_IN = Path(__file__).with_name("gvisor_stand_in.sh")
_TYPE = "io.kubernetes.cri.container-type"
_SANDBOX = "io.kubernetes.cri.sandbox-id"
_START = b"start\n"
_KILL_TIMEOUT = 10.0
_ENDING = 2.0
"""Seconds that a container can take to end when a signal no longer reaches it."""


class GvisorExecutor:
    """See :class:`noderuntime.node.executor.base.Executor`."""

    traits = Traits(root_container=True, own_kernel=True, cdi_devices=False)

    def __init__(
        self, name: str, host: Host, binary: Path, run_dir: Path, busybox: Path, *, systemd_cgroup: bool
    ) -> None:
        self.name = name
        self._host = host
        self._root = run_dir / "runsc"
        self._bundles = run_dir / "containers"
        self._busybox = Path(shutil.which(busybox) or busybox)
        flags = [
            f"--root={self._root}",
            "--platform=systrap",
            "--network=sandbox",
            "--overlay2=none",  # a writable layer in the sandbox's memory would escape stats and limits
            "--oci-seccomp",  # profiles of the pod's own; ignored without it
            "--allow-suid",  # what no_new_privs is there to prevent
            "--allow-flag-override",  # by annotations of ours alone: the pod's are not passed on
        ]
        # On cgroup v1 runsc makes its cgroups itself, where systemd makes everybody else's too.
        self._slices_as_paths = systemd_cgroup and host.cgroup_version() == 1
        if systemd_cgroup and not self._slices_as_paths:
            flags.append("--systemd-cgroup")
        self._runsc = OciCommand(host, binary, flags)
        self._execs = Execs(self._runsc, run_dir / "exec")

    async def probe(self) -> Features:
        """Ask ``runsc --version``: its first line ends with the version."""
        first, _, _ = (await self._runsc.call("--version")).decode(errors="replace").partition("\n")
        return Features(
            version=first.rpartition(" ")[2] or "unknown",
            user_namespaces=False,
            recursive_read_only_mounts=True,
        )

    def monitor_runtime(self, container_id: str, sandbox_id: str, *, is_root: bool) -> RuntimeCommand:
        """The monitor runs runsc for the sandbox itself, and the stand-in for its containers."""
        if is_root:
            return RuntimeCommand(self._runsc.binary, self._runsc.flags)
        sandbox = str(self._bundles / sandbox_id / "pidfile")
        runsc = (str(self._runsc.binary), *self._runsc.flags)
        return RuntimeCommand(self._busybox, ("sh", str(_STAND_IN), str(self._busybox), sandbox, *runsc))

    def adapt_spec(self, spec: dict[str, Any], sandbox_id: str, *, is_root: bool) -> None:
        """Say which container is the sandbox; without a network namespace it uses the node's network."""
        translate(spec)
        annotations = spec.setdefault("annotations", {})
        annotations[_TYPE] = "sandbox" if is_root else "container"
        if not is_root:
            annotations[_SANDBOX] = sandbox_id
        elif not any(one["type"] == "network" for one in spec["linux"]["namespaces"]):
            annotations["dev.gvisor.flag.network"] = "host"
        if self._slices_as_paths:
            spec["linux"]["cgroupsPath"] = scope_path(spec["linux"]["cgroupsPath"])

    async def start(self, container_id: str, sandbox_id: str, *, is_root: bool) -> None:
        """Start the sandbox, or tell a container's stand-in to start it, and hear how that went."""
        if is_root:
            await self._runsc.call("start", container_id)
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
        """Signal the sandbox by its process, a container through runsc; one that has not started is ended."""
        if container_id == sandbox_id and process is not None:
            return await self._host.signal(process, signo)
        return await self._end_unstarted(container_id, process) or await self._kill_inside(
            container_id, signo, process
        )

    async def holds(self, container_id: str) -> bool:
        """Look for the container's state file."""
        return await FILES.run(self._known, container_id)

    async def delete(self, container_id: str, sandbox_id: str) -> None:
        """Remove a container, or with its root container the sandbox; what still runs is killed."""
        await self._end_unstarted(container_id)
        if await self.holds(container_id):
            await self._runsc.call("delete", "--force", container_id)
        await FILES.run(self._remove_locks, sandbox_id)
        if not await FILES.run(self._known, "*"):
            # The gofers' empty network namespace, which runsc pins for them all and makes anew when missing.
            await self._host.unpin_namespaces([self._root / "null-netns"])

    async def exec_sync(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, timeout: float | None
    ) -> ExecResult:
        """Run a process with ``runsc exec``."""
        return await self._execs.run(self._target(container_id), process, timeout=timeout)

    async def exec(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, stdin: bool
    ) -> Program:
        """Start a process with ``runsc exec``, which stays as long as it does."""
        started = await self._execs.start(self._target(container_id), process, stdin=stdin)
        return started.program

    async def connect(self, sandbox_id: str, netns: Path | None, port: int) -> Conversation:
        """Have the sandbox connect: its network stack is its own, and knows nothing of the namespace's lo."""
        program, kill = await self._execs.start(
            self._target(sandbox_id), connecting_process(port), stdin=True
        )
        return SandboxConnection(program, port, kill)

    async def update(self, container_id: str, sandbox_id: str, resources: Mapping[str, Any]) -> None:
        """Set ``linux.resources`` with ``runsc update``."""
        await self._runsc.call(
            "update", "--resources", "-", container_id, stdin=json.dumps(resources).encode()
        )

    async def checkpoint(
        self, container_id: str, sandbox_id: str, directory: Path, *, timeout: float
    ) -> None:
        """Refuse: runsc knows only checkpoints of whole sandboxes."""
        raise Unimplemented(f"handler {self.name} offers no checkpoints of single containers")

    async def pids(self, container_id: str, sandbox_id: str) -> Sequence[int]:
        """Containers of a sandbox have no processes on the node."""
        return ()

    def _target(self, container_id: str) -> Target:
        async def identify(pid: int) -> Kill:
            """PIDs are those of the sandbox's kernel, and runsc checks that they are the container's."""

            async def kill() -> None:
                await self._runsc.run("kill", "--pid", str(pid), container_id, "KILL")

            return kill

        return Target(
            arguments=lambda spec, pidfile: ("--process", spec, "--internal-pid-file", pidfile, container_id),
            identify=identify,
        )

    async def _kill_inside(self, container_id: str, signo: int, process: ProcessRef | None) -> bool:
        """Signal a container of a sandbox; False for one whose stand-in ends by itself."""
        scope = ["--all"] if signo == signal.SIGKILL else []
        done = await self._runsc.run("kill", *scope, container_id, str(signo), timeout=_KILL_TIMEOUT)
        if done.returncode == 0:
            return True
        stand_in = process or await self._stand_in(container_id)
        if stand_in is not None and not await self._host.wait(stand_in, timeout=_ENDING):
            raise self._runsc.failure("kill", done)
        return False

    async def _end_unstarted(self, container_id: str, process: ProcessRef | None = None) -> bool:
        """End a container that has not started, with a start under way; False when it has started or ended.

        What that start has made in the sandbox is removed by :meth:`delete`.
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
        """Return the process that stands for a container, None when it has ended."""
        pid = _read_number(self._bundles / container_id / "pidfile")
        return None if pid is None else await self._host.process(pid)

    def _known(self, container_id: str) -> bool:
        """Look for a state file (``*``: any), whose name is ``<container>_sandbox:<sandbox>.state``."""
        return any(self._root.glob(f"{container_id}_sandbox:*.state"))

    def _remove_locks(self, sandbox_id: str) -> None:
        """Remove the lock files of a sandbox of which nothing else is left.

        A call that looks at all containers of a sandbox makes the lock of one anew whose delete it overlaps.
        """
        if not any(self._root.glob(f"*_sandbox:{sandbox_id}.state")):
            for lock in self._root.glob(f"*_sandbox:{sandbox_id}.lock"):
                lock.unlink(missing_ok=True)


def _open_gate(gate: Path) -> bool:
    """Let the stand-in that waits at the gate start its container; False when none waits."""
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
