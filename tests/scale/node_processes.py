"""The processes that simulate nodes, as the test sees them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from scale.client import Json
from scale.objects import node_name
from scale.subprocesses import cpu_seconds, ending_with_parent


@dataclass(frozen=True)
class Report:
    """What all simulated nodes did so far; times by the machine's clock."""

    agents: int
    watching: int
    reports: int
    last_report: float
    reads: tuple[float, ...]


class NodeProcesses:
    """Several processes with a share of the nodes each."""

    def __init__(self, processes: int, log: Path) -> None:
        self.processes = processes
        self._log = log
        self._running: list[asyncio.subprocess.Process] = []

    async def start(self, kubeconfig: Path, credentials: Path) -> None:
        """Start all processes."""
        tests = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
        arguments = ["--kubeconfig", str(kubeconfig), "--credentials", str(credentials)]
        for share in range(self.processes):
            argv = [sys.executable, "-m", "scale.nodes", *arguments, "--share", str(share)]
            with self._log.open("ab") as log:
                self._running.append(
                    await asyncio.create_subprocess_exec(
                        *ending_with_parent(argv),
                        env={**os.environ, "PYTHONPATH": path},
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=log,
                        limit=1 << 24,
                    )
                )

    async def stop(self) -> None:
        """Kill all processes."""
        for process in self._running:
            if process.returncode is None:
                process.kill()
            await process.wait()
        self._running.clear()

    async def ask(self, **command: object) -> Report:
        """Send a command to all processes and return their summed answers."""
        answers = await asyncio.gather(*(self._ask(process, command) for process in self._running))
        return Report(
            agents=sum(answer["agents"] for answer in answers),
            watching=sum(answer["watching"] for answer in answers),
            reports=sum(answer["reports"] for answer in answers),
            last_report=max(answer["lastReport"] for answer in answers),
            reads=tuple(sorted(at for answer in answers for at in answer["reads"])),
        )

    def cpu(self) -> float:
        """Return the CPU time of all processes in seconds."""
        return sum(cpu_seconds(process.pid) for process in self._running)

    async def report(self, since: float = 0.0) -> Report:
        """Return what happened so far; ``reads`` holds the times of reads since a time."""
        return await self.ask(do="report", since=since)

    async def _ask(self, process: asyncio.subprocess.Process, command: dict[str, object]) -> Json:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process of simulated nodes ended: {self._log.read_text()[-3000:]}")
        found: Json = json.loads(line)
        return found


def names(count: int, first: int = 0) -> list[str]:
    """Return the names of some Nodes."""
    return [node_name(number) for number in range(first, first + count)]
