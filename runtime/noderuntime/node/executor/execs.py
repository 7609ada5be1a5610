"""Execs: OCI processes that run in a container beside its first process.

The runtime's ``exec`` stays in the foreground and forwards the streams, the signals and the exit status.
It writes a PID file once the process runs. Output before that is the runtime's own. PIDs are reused, so the
process is identified when the file appears, not when it is killed. By itself, runc would last as long as any
process that has inherited the output; the exec ends with its own process instead.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from noderuntime.core import tasks
from noderuntime.core.errors import DeadlineExceeded, os_errors
from noderuntime.node.executor.base import ExecResult
from noderuntime.node.executor.command import TIMEOUT, OciCommand
from noderuntime.node.host.base import STDERR, STDOUT, Completed, Program, shell_status
from noderuntime.node.host.inotify import CLOSE_WRITE, MOVED_TO, DirectoryWatch
from noderuntime.node.host.process import read_pid

OUTPUT_LIMIT = 16 << 20
"""The limit of each stream that ExecSync returns, in bytes (CRI: ExecSync)."""

_END_SECONDS = 5.0
"""How long to wait for the runtime to exit after its process was killed."""
_ERROR_LIMIT = 1 << 16
"""The limit of the runtime's own output in an error, in bytes."""

_IDLE_SECONDS = 30.0

Kill = Callable[[], Awaitable[None]]
"""Kills one process of a container. No error if it has ended."""


class Found(NamedTuple):
    """A process of a container."""

    kill: Kill
    ended: Callable[[], Coroutine[Any, Any, object]] | None = None
    """Waits for its end, if it is a process of the node."""


@dataclass(frozen=True, slots=True)
class Target:
    """The container in which a process is started."""

    arguments: Callable[[str, str], Sequence[str]]
    """Returns the arguments of ``exec`` for the paths of the process's spec and of the PID file."""
    identify: Callable[[int], Awaitable[Found]]
    """Identifies the process whose PID the runtime wrote. In gVisor it is a PID of the sandbox."""
    runtime: OciCommand | None = None
    """The runtime that created the container, if it differs from the handler's."""


class Started(NamedTuple):
    """A running process, and the function that kills it."""

    program: Program
    kill: Kill


class Execs:
    """The execs of one runtime.

    ``directory`` contains the spec and the PID file of each. It is on a tmpfs, so no thread is needed.
    """

    def __init__(self, runtime: OciCommand, directory: Path) -> None:
        self._runtime = runtime
        self._directory = directory
        self._pidfiles = PidFiles(directory)

    async def run(self, target: Target, process: Mapping[str, Any], *, timeout: float | None) -> ExecResult:
        """Run a process without input to its end (CRI: ExecSync). Its children can run on.

        Kills it after ``timeout`` seconds and raises DeadlineExceeded. ToolError if it cannot be started.
        """
        runtime = target.runtime or self._runtime
        with self._files(process) as (spec, pidfile):
            arguments = target.arguments(str(spec), str(pidfile.path))
            program = await runtime.converse("exec", *arguments, stdin=False, terminal=False)
            async with tasks.Scope() as scope:
                running = scope.start(_completed(program), name="run an exec")
                identified = scope.start(
                    _identified(target, pidfile, program), name="identify an exec's process"
                )
                try:
                    await tasks.first(running, timeout=timeout)
                finally:
                    in_time = running.done()
                    if not in_time:
                        await tasks.finish(_end(target, running, identified, pidfile), name="end an exec")
            if not in_time:
                raise DeadlineExceeded(f"the command did not finish within {timeout:g} s")
            done = running.result()
            if identified.cancelled() and pidfile.read() is None:  # the output is the runtime's own
                raise runtime.failure("exec", done)
        return ExecResult(shell_status(done.returncode), done.stdout, done.stderr)

    async def start(self, target: Target, process: Mapping[str, Any], *, stdin: bool) -> Started:
        """Return the process once it runs, with its stdio (CRI: Exec). ToolError if it cannot be started."""
        with self._files(process) as (spec, pidfile):
            arguments = target.arguments(str(spec), str(pidfile.path))
            terminal = bool(process.get("terminal"))
            runtime = target.runtime or self._runtime
            program = await runtime.converse("exec", *arguments, stdin=stdin, terminal=terminal)
            try:
                kill = await self._started(target, program, pidfile)
                if kill is not None:
                    return Started(program, kill)
                output = await _output(program)
                raise runtime.failure("exec", Completed(await program.wait(), b"", output))
            except BaseException:
                await program.close()
                raise

    async def _started(self, target: Target, program: Program, pidfile: PidFile) -> Kill | None:
        """Wait until the process runs and identify it. None if the runtime ended without a PID."""
        async with tasks.Scope() as scope:
            identified = scope.start(_identified(target, pidfile, program), name="identify an exec's process")
            ended = scope.start(program.ended(), name="await the end of a runtime")
            await tasks.first(identified, ended, timeout=TIMEOUT)
            if identified.done():
                return identified.result()
            if not ended.done():
                raise DeadlineExceeded(f"the runtime did not start the command within {TIMEOUT:g} s")
        pid = pidfile.read()
        return None if pid is None else (await target.identify(pid)).kill

    @contextmanager
    def _files(self, process: Mapping[str, Any]) -> Iterator[tuple[Path, PidFile]]:
        """Write the spec of a process, yield its path and that of the PID file, and remove both files."""
        spec = self._directory / f"{secrets.token_hex(8)}.json"
        pidfile = spec.with_suffix(".pid")
        try:
            with os_errors(f"write {spec}"):
                _write(spec, process)
            with self._pidfiles.expect(pidfile) as expected:
                yield spec, expected
        finally:
            for path in (spec, pidfile, pidfile.with_name(f".{pidfile.name}")):  # runc renames the last one
                path.unlink(missing_ok=True)


class PidFile:
    """A PID file that a runtime is going to write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed = asyncio.Event()

    async def written(self) -> int:
        """Wait until the file contains a PID, and return it."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            if (pid := self.read()) is not None:
                return pid

    def read(self) -> int | None:
        """Return the PID, or None while the file contains none."""
        return read_pid(self.path)


class PidFiles:
    """The PID files in a directory that are being awaited. For use on one event loop.

    They share one inotify instance, because the default limit (max_user_instances) is 128. It is kept for
    the next ones for a while, because to close it takes the kernel some ten milliseconds.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._awaited: dict[str, PidFile] = {}
        self._watch: DirectoryWatch | None = None
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def expect(self, path: Path) -> Iterator[PidFile]:
        """Watch a file that does not exist yet, in the directory, which does."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        if self._watch is None:
            self._watch = DirectoryWatch.on(self._directory, CLOSE_WRITE | MOVED_TO)
            loop.add_reader(self._watch, self._read, self._watch)
        expected = self._awaited[path.name] = PidFile(path)
        try:
            yield expected
        finally:
            del self._awaited[path.name]
            if not self._awaited:
                self._timer = loop.call_later(_IDLE_SECONDS, self._close, self._watch)

    def _read(self, watch: DirectoryWatch) -> None:
        changes = watch.read()
        for name, expected in self._awaited.items():
            if changes.overflow or name in changes.names:
                expected.changed.set()

    def _close(self, watch: DirectoryWatch) -> None:
        asyncio.get_running_loop().remove_reader(watch)
        watch.close()
        self._watch = None


async def _identified(target: Target, pidfile: PidFile, program: Program) -> Kill:
    """Identify the process, whose end is that of the program from now on. Return its kill."""
    found = await target.identify(await pidfile.written())
    if found.ended is not None:
        program.follow(found.ended())
    return found.kill


async def _completed(program: Program) -> Completed:
    """Read the program's output to its end, and wait for its end. Kill it if cancelled."""
    kept = {STDOUT: bytearray(), STDERR: bytearray()}
    try:
        while True:
            stream, data = await program.read()
            if not data:
                return Completed(await program.wait(), bytes(kept[STDOUT]), bytes(kept[STDERR]))
            kept[stream] += data[: OUTPUT_LIMIT - len(kept[stream])]
    finally:
        await program.close()


async def _end(
    target: Target,
    running: asyncio.Task[Completed],
    identified: asyncio.Task[Kill],
    pidfile: PidFile,
) -> None:
    """Kill the process, so that its runtime exits. Kill the runtime if it does not.

    If only the runtime were killed, the process in the container would keep running.
    """
    known = identified.done() and identified.exception() is None
    try:
        if known:
            await identified.result()()
            await tasks.first(running, timeout=_END_SECONDS)
    finally:
        running.cancel()
        await tasks.settle(running)
    if not known and (pid := pidfile.read()) is not None:  # it has just started
        found = await target.identify(pid)
        await found.kill()


async def _output(program: Program) -> bytes:
    """Return the output of a runtime that failed."""
    output = b""
    while len(output) < _ERROR_LIMIT:
        _, data = await program.read()
        if not data:
            break
        output += data
    return output


def _write(spec: Path, process: Mapping[str, Any]) -> None:
    spec.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(spec, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        json.dump(process, file)
