"""The real operator as a process, with its memory and CPU time sampled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

from scale.subprocesses import cpu_seconds, ending_with_parent

_SAMPLE_SECONDS = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")
_START = "from noderuntime_operator.__main__ import main; main()"


class Operator:
    """The operator's process; one at a time."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self.log = log
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONUNBUFFERED": "1"}
        self._process: asyncio.subprocess.Process | None = None
        self._sampling: asyncio.Task[None] | None = None
        self._highest = 0.0

    @property
    def pid(self) -> int:
        """The process ID."""
        assert self._process is not None
        return self._process.pid

    async def start(self, environment: dict[str, str]) -> None:
        """Start the operator with these variables."""
        argv = [sys.executable, "-c", _START, "--health-port", str(_free_port()), "--metrics-port", "0"]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *ending_with_parent(argv),
                env=self._environment | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._highest = 0.0
        self._sampling = asyncio.create_task(self._sample())

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the operator; after 20 s with SIGKILL."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._sampling is not None:
            self._sampling.cancel()
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def check(self) -> None:
        """Raise RuntimeError with the log's end if the operator ended by itself."""
        if self._process is not None and self._process.returncode is not None:
            raise RuntimeError(f"the operator ended: {self.log.read_text()[-3000:]}")

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        with contextlib.suppress(OSError, IndexError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE / (1 << 20)
        return 0.0

    def peak(self) -> float:
        """Return the highest sample of :meth:`memory` since the last call, in MiB."""
        highest, self._highest = max(self._highest, self.memory()), 0.0
        return highest

    def cpu(self) -> float:
        """Return the CPU time in seconds."""
        return cpu_seconds(self.pid)

    async def _sample(self) -> None:
        while True:
            self._highest = max(self._highest, self.memory())
            await asyncio.sleep(_SAMPLE_SECONDS)


class CpuMeter:
    """The cores that the operator uses on average."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._began, self._cpu = time.monotonic(), operator.cpu()

    def cores(self) -> float:
        """Return the average since this object was created."""
        return (self._operator.cpu() - self._cpu) / (time.monotonic() - self._began)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
