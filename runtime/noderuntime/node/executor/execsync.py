"""ExecSync: run a process in a container to its end, with a deadline that ends it there too.

The runtime's ``exec`` stays in the foreground and carries the streams. Killing *it* would leave
the process in the container running, so at the deadline the process is killed first, by the
PID that the runtime wrote down, and the runtime then ends by itself.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from noderuntime.core import tasks
from noderuntime.core.errors import DeadlineExceeded
from noderuntime.node.executor.base import ExecResult
from noderuntime.node.executor.command import OciCommand
from noderuntime.node.executor.execfiles import ExecFiles, read_pid
from noderuntime.node.host.base import Completed

OUTPUT_LIMIT = 16 << 20
"""Bytes of each stream that a caller gets (CRI: ExecSync)."""

_LAST_WORDS = 5.0
"""Seconds that the runtime has to end after its process was killed."""

Arguments = Callable[[str, str], Sequence[str]]
"""From the path of the process's spec and of the PID file to the arguments of ``exec``."""


class ExecSync:
    """Foreground execs without input, run to their end."""

    def __init__(self, files: ExecFiles) -> None:
        self._files = files

    async def run(
        self,
        runtime: OciCommand,
        arguments: Arguments,
        process: Mapping[str, Any],
        *,
        timeout: float | None,
        kill: Callable[[int], Awaitable[None]],
    ) -> ExecResult:
        """Run the process; ``kill`` gets the PID from the PID file when time is up."""
        with self._files.of(process) as (spec, pidfile):
            running = tasks.start(
                runtime.run(
                    "exec", *arguments(str(spec), str(pidfile)), timeout=math.inf, output_limit=OUTPUT_LIMIT
                ),
                name="run an exec",
            )
            done = await self._finish(running, pidfile, timeout, kill)
            started = read_pid(pidfile) is not None
        if not started:  # what it says is about itself, not of the command
            raise runtime.failure("exec", done)
        return ExecResult(done.returncode, done.stdout, done.stderr)

    async def _finish(
        self,
        running: asyncio.Task[Completed],
        pidfile: Path,
        timeout: float | None,
        kill: Callable[[int], Awaitable[None]],
    ) -> Completed:
        try:
            await asyncio.wait([running], timeout=timeout)
            if running.done():
                return running.result()
            raise DeadlineExceeded(f"the command did not finish within {timeout:g} s and was killed")
        finally:
            if not running.done():
                await tasks.finish(self._end(running, pidfile, kill), name="end an exec")

    async def _end(
        self, running: asyncio.Task[Completed], pidfile: Path, kill: Callable[[int], Awaitable[None]]
    ) -> None:
        pid = read_pid(pidfile)
        if pid is not None:
            await kill(pid)
            await asyncio.wait([running], timeout=_LAST_WORDS)
        running.cancel()  # ends the runtime's own process, if it still runs
        await asyncio.wait([running])
