"""Run as a program this is noderuntime, and reports callbacks that block its event loop.

Each callback that takes longer than :data:`LIMIT` is a line on stderr, with the place at which it was seen.
Time that a busy machine takes does not count: the thread was ready to run and had no CPU, or it waited for
the GIL of a thread that had none, or for the start of a thread. Nor does time in which the machine stood
still: the sampling thread did not run either, though it wakes up every 10 ms.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NamedTuple

LIMIT = 0.05
"""Seconds."""
MARK = "slow callback"
_SAMPLE_SECONDS = 0.01


class Usage(NamedTuple):
    """Seconds of CPU time and of waiting for a CPU (proc_pid_schedstat(5))."""

    ran: float
    waited: float
    """The thread was ready to run and did not."""
    turns: float
    """How often the thread got a CPU."""
    others_ran: float
    """CPU time of the process's other threads."""
    samples: float
    """How often the sampling thread got a CPU."""


class Watch:
    """Measures every callback of the event loop of the thread that creates it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._schedstat = self._sampler = _open_schedstat()
        self._began = 0.0
        self._starting = 0.0
        """Seconds in which this callback waited for a new thread to run."""
        self._place = ""
        self._run = asyncio.Handle._run

    def install(self) -> None:
        """Measure from now on."""

        def run(handle: asyncio.Handle) -> None:
            self._measure(handle)

        def start(thread: threading.Thread) -> None:
            began = time.monotonic()
            started(thread)
            if threading.get_ident() == self._thread:
                self._starting += time.monotonic() - began

        started = threading.Thread.start
        threading.Thread.start = start  # type: ignore[method-assign]
        asyncio.Handle._run = run  # type: ignore[method-assign]
        opened = threading.Event()
        threading.Thread(target=self._sample, args=(opened,), daemon=True).start()
        opened.wait()

    def _measure(self, handle: asyncio.Handle) -> None:
        before, self._place, self._starting = self._usage(), "", 0.0
        began = self._began = time.monotonic()
        try:
            self._run(handle)
        finally:
            took, self._began = time.monotonic() - began - self._starting, 0.0
            if took > LIMIT and (busy := self._busy(took, before)) > LIMIT:
                line = f"{MARK} seconds={busy:.3f} of={took:.3f} at={self._place} callback={handle!r}"
                os.write(2, f"{line[:2000]}\n".encode())

    def _usage(self) -> Usage:
        ran, waited, turns = map(int, os.pread(self._schedstat, 100, 0).split())
        samples = int(os.pread(self._sampler, 100, 0).split()[2])
        return Usage(ran / 1e9, waited / 1e9, turns, time.process_time() - ran / 1e9, samples)

    def _busy(self, took: float, before: Usage) -> float:
        """Return the seconds of a callback in which the machine ran and the thread had what it needs.

        It needs a CPU, and so does the thread that holds the GIL. A thread that waits for the GIL
        wakes up after each switch interval; one that blocks does not.
        """
        used = Usage(*(after - begun for after, begun in zip(self._usage(), before, strict=True)))
        slept_idle = took - used.ran - used.waited - used.others_ran
        starved = used.waited + min(max(slept_idle, 0), used.turns * 2 * sys.getswitchinterval())
        return min(took, used.samples * 1.2 * _SAMPLE_SECONDS) - starved

    def _sample(self, opened: threading.Event) -> None:
        self._sampler = _open_schedstat()
        opened.set()
        while True:
            time.sleep(_SAMPLE_SECONDS)
            began = self._began
            if began and not self._place and time.monotonic() - began > LIMIT:
                frames = traceback.extract_stack(sys._current_frames()[self._thread])[-4:]
                self._place = " > ".join(f"{Path(one.filename).name}:{one.lineno}" for one in frames)


def _open_schedstat() -> int:
    """Open the statistics of the calling thread."""
    return os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)


if __name__ == "__main__":
    import noderuntime.__main__

    Watch().install()
    noderuntime.__main__.main()
