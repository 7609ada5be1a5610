"""The ``runc`` handler: Linux containers, by any runtime with runc's command line and state.

What runc would do by sleeping in a loop (wait for the end of what it killed, before it
deletes) or by starting a program (send a signal, let a created container go) is done here with
pidfds and files; the container's first process is known from runc's ``state.json``.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noderuntime.errors import FailedPrecondition, Internal, NoderuntimeError
from noderuntime.executor.base import ExecResult, Features, RuntimeCommand
from noderuntime.executor.command import TIMEOUT, OciCommand
from noderuntime.executor.execfiles import ExecFiles
from noderuntime.executor.execsync import Arguments, ExecSync
from noderuntime.executor.foreground import Foreground
from noderuntime.host.base import Conversation, Host, ProcessRef, Program
from noderuntime.host.cgroup import path_in_hierarchy

_KILL_TIMEOUT = 10.0
_ROUNDS = 5
"""How often to look again for processes that were forked while others were killed."""


class RuncExecutor:
    """See :class:`noderuntime.executor.base.Executor`."""

    needs_root_container = False

    def __init__(self, name: str, host: Host, binary: Path, run_dir: Path, *, systemd_cgroup: bool) -> None:
        self.name = name
        self._host = host
        self._root = run_dir / "runc"
        # To /dev/null goes the copy; with a log set, errors come on stderr as plain text.
        flags = ["--root", str(self._root), "--log", "/dev/null"]
        if systemd_cgroup:
            flags.append("--systemd-cgroup")
        self._runc = OciCommand(host, binary, flags)
        files = ExecFiles(run_dir / "exec")
        self._exec_sync, self._exec = ExecSync(files), Foreground(files)

    async def probe(self) -> Features:
        """Ask ``runc features``."""
        features = await self._runc.query("features")
        linux = features.get("linux", {})
        return Features(
            version=features.get("annotations", {}).get("org.opencontainers.runc.version", "unknown"),
            user_namespaces="user" in linux.get("namespaces", ())
            and bool(linux.get("mountExtensions", {}).get("idmap", {}).get("enabled")),
            recursive_read_only_mounts="rro" in features.get("mountOptions", ()),
        )

    def monitor_runtime(self, container_id: str, sandbox_id: str, *, is_root: bool) -> RuntimeCommand:
        """The monitor runs runc itself."""
        return RuntimeCommand(self._runc.binary, self._runc.flags)

    def adapt_spec(self, spec: dict[str, Any], sandbox_id: str, *, is_root: bool) -> None:
        """Specs are made for runc as they are."""

    async def start(self, container_id: str, sandbox_id: str, *, is_root: bool) -> None:
        """Start what ``create`` prepared: its first process waits for a reader of its fifo.

        Where it does not, ``runc start`` has the words for why.
        """
        state, fifo = await self._state(container_id), self._root / container_id / "exec.fifo"
        if state is not None and await self._host.read_fifo(fifo, _init(state), timeout=TIMEOUT):
            fifo.unlink(missing_ok=True)
        else:
            await self._runc.call("start", container_id)

    async def kill(self, container_id: str, sandbox_id: str, signo: int, *, everything: bool) -> None:
        """Signal the first process, or every process in the container's cgroup."""
        state = await self._state(container_id)
        if state is None:
            return
        await self._host.signal(_init(state), signo)
        if everything:
            await self._signal_rest(state, signo)

    async def delete(self, container_id: str, sandbox_id: str) -> None:
        """Remove runc's state and the cgroup; what still runs is killed and awaited before."""
        state = await self._state(container_id)
        if state is None:  # never created, or given up before it had a process
            await self._host.remove_tree(self._root / container_id)
            return
        init = _init(state)
        if await self._host.signal(init, signal.SIGKILL) and not await self._host.wait(
            init, timeout=_KILL_TIMEOUT
        ):
            raise Internal(f"process {init.pid} does not end after SIGKILL")
        await self._signal_rest(state, signal.SIGKILL)
        await self._runc.call("delete", container_id)

    async def exec_sync(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, timeout: float | None
    ) -> ExecResult:
        """Run a process with ``runc exec``."""

        async def kill(pid: int) -> None:
            running = await self._host.process(pid)
            if running is not None:
                await self._host.kill_tree(running)

        return await self._exec_sync.run(
            self._runc, _exec_arguments(container_id), process, timeout=timeout, kill=kill
        )

    async def exec(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, stdin: bool
    ) -> Program:
        """Start a process with ``runc exec``, which stays as long as it does."""
        started = await self._exec.start(self._runc, _exec_arguments(container_id), process, stdin=stdin)
        return started.program

    async def connect(self, sandbox_id: str, netns: Path | None, port: int) -> Conversation:
        """Connect from a socket that belongs to the pod's network namespace."""
        return await self._host.connect(netns, port)

    async def update(self, container_id: str, sandbox_id: str, resources: Mapping[str, Any]) -> None:
        """Set ``linux.resources`` with ``runc update``."""
        done = await self._runc.run(
            "update", "--resources", "-", container_id, stdin=json.dumps(resources).encode()
        )
        if done.returncode != 0:
            raise self._runc.failure("update", done)

    async def checkpoint(
        self, container_id: str, sandbox_id: str, directory: Path, *, timeout: float | None
    ) -> None:
        """Have ``runc checkpoint`` run CRIU. Where that fails half-way processes may be frozen: thaw them."""
        if shutil.which("criu") is None:
            raise FailedPrecondition("a checkpoint needs CRIU, and this node has no program criu")
        arguments = ["--leave-running", "--tcp-established", "--file-locks"]
        arguments += ["--image-path", str(directory / "checkpoint"), "--work-path", str(directory)]
        try:
            await self._runc.call("checkpoint", *arguments, container_id, timeout=timeout or math.inf)
        except NoderuntimeError:
            await self._runc.run("resume", container_id)
            raise

    async def pids(self, container_id: str, sandbox_id: str) -> Sequence[int]:
        """List the processes of the container's cgroup."""
        state = await self._state(container_id)
        return [] if state is None else await self._host.cgroup_pids(_cgroup(state))

    async def _signal_rest(self, state: Mapping[str, Any], signo: int) -> None:
        """Signal what the cgroup holds; SIGKILL is repeated until nothing is left in it."""
        for _ in range(_ROUNDS):
            found = [await self._host.process(pid) for pid in await self._host.cgroup_pids(_cgroup(state))]
            running = [process for process in found if process is not None]
            for process in running:
                await self._host.signal(process, signo)
            if signo != signal.SIGKILL or not running:
                return
            for process in running:
                await self._host.wait(process, timeout=_KILL_TIMEOUT)

    async def _state(self, container_id: str) -> dict[str, Any] | None:
        """Read what runc keeps of a container; None when it knows none."""
        file = self._root / container_id / "state.json"
        try:
            state = json.loads(await asyncio.to_thread(file.read_bytes))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Internal(f"runc's state of {container_id} is damaged") from error
        return state if isinstance(state, dict) and state.get("init_process_pid") else None


def _exec_arguments(container_id: str) -> Arguments:
    return lambda spec, pidfile: ("--process", spec, "--pid-file", pidfile, container_id)


def _init(state: Mapping[str, Any]) -> ProcessRef:
    return ProcessRef(int(state["init_process_pid"]), int(state["init_process_start"]))


def _cgroup(state: Mapping[str, Any]) -> str:
    """Return the container's own cgroup; Internal where it has none, for then it is in somebody else's."""
    paths: Mapping[str, str] = state.get("cgroup_paths") or {}
    path = path_in_hierarchy(paths.get("") or paths.get("memory") or next(iter(paths.values()), ""))
    if path == "/":
        raise Internal(f"container {state.get('id')} has no cgroup of its own")
    return path
