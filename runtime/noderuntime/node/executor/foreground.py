"""Exec: start a process in a container and hold its stdio.

The runtime's ``exec`` stays in the foreground and carries the streams, the signals and the exit status.
It writes a PID file when the process runs; before that, what it says is about itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from noderuntime.core.errors import DeadlineExceeded
from noderuntime.core.tasks import Scope, first
from noderuntime.node.executor.command import TIMEOUT, OciCommand
from noderuntime.node.executor.execfiles import ExecFiles, read_pid
from noderuntime.node.executor.execsync import Arguments
from noderuntime.node.host.base import Completed, Program
from noderuntime.node.host.inotify import CLOSE_WRITE, MOVED_TO, DirectoryWatch

_STARTING = 16
"""Processes that are started at the same time: each needs an inotify instance, and a node has only 128."""
_WORDS = 1 << 16


class Started(NamedTuple):
    """A process that runs."""

    program: Program
    pid: int
    """As the container's kernel knows it, which is not the node's in gVisor."""


class Foreground:
    """Execs whose stdio is held."""

    def __init__(self, files: ExecFiles) -> None:
        self._files = files
        self._turn = asyncio.Semaphore(_STARTING)

    async def start(
        self, runtime: OciCommand, arguments: Arguments, process: Mapping[str, Any], *, stdin: bool
    ) -> Started:
        """Return the process when it runs; ToolError when it does not come to that."""
        async with self._turn:
            with self._files.of(process) as (spec, pidfile):
                program = await runtime.converse(
                    "exec",
                    *arguments(str(spec), str(pidfile)),
                    stdin=stdin,
                    terminal=bool(process.get("terminal")),
                )
                try:
                    pid = await _started(program, pidfile)
                    if pid is not None:
                        return Started(program, pid)
                    words = await _words(program)
                    raise runtime.failure("exec", Completed(await program.wait(), b"", words))
                except BaseException:
                    await program.close()
                    raise


async def _started(program: Program, pidfile: Path) -> int | None:
    """Wait until the PID is written down and return it; None when the runtime ended without."""
    with DirectoryWatch(pidfile.parent, CLOSE_WRITE | MOVED_TO) as watch:
        async with Scope() as scope:
            written = scope.start(_written(pidfile, watch), name="await a PID file")
            ended = scope.start(program.ended(), name="await the end of a runtime")
            await first(written, ended, timeout=TIMEOUT)
            answered = written.done() or ended.done()
    if not answered:
        raise DeadlineExceeded(f"the runtime did not start the command within {TIMEOUT:g} s")
    return read_pid(pidfile)


async def _written(pidfile: Path, watch: DirectoryWatch) -> None:
    while read_pid(pidfile) is None:
        await watch.changes()


async def _words(program: Program) -> bytes:
    """Read what the runtime said of its failure."""
    words = b""
    while len(words) < _WORDS:
        _, said = await program.read()
        if not said:
            break
        words += said
    return words
