"""Run as a program this is noderuntime, and reports what holds up its event loop.

Each callback that takes longer than :data:`LIMIT` is a line on stderr, with the place at which it was seen.
Time in which the thread was ready to run but had no processor does not count: the machine can be busy.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from pathlib import Path

LIMIT = 0.05
"""Seconds."""
MARK = "slow callback"
_SAMPLE_SECONDS = 0.02


class Watch:
    """Measures every callback of the event loop of the thread that creates it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self._began = 0.0
        self._place = ""
        self._run = asyncio.Handle._run

    def install(self) -> None:
        """Measure from now on."""

        def run(handle: asyncio.Handle) -> None:
            self._measure(handle)

        asyncio.Handle._run = run  # type: ignore[method-assign]
        threading.Thread(target=self._sample, daemon=True).start()

    def _measure(self, handle: asyncio.Handle) -> None:
        waited, self._place = self._waited(), ""
        began = self._began = time.monotonic()
        try:
            self._run(handle)
        finally:
            took, self._began = time.monotonic() - began, 0.0
            if took > LIMIT and (busy := took - (self._waited() - waited)) > LIMIT:
                line = f"{MARK} seconds={busy:.3f} of={took:.3f} at={self._place} callback={handle!r}"
                os.write(2, f"{line[:2000]}\n".encode())

    def _waited(self) -> float:
        """Return the seconds in which the thread was ready to run and did not."""
        return int(os.pread(self._schedstat, 100, 0).split()[1]) / 1e9

    def _sample(self) -> None:
        while True:
            time.sleep(_SAMPLE_SECONDS)
            began = self._began
            if began and not self._place and time.monotonic() - began > LIMIT:
                frames = traceback.extract_stack(sys._current_frames()[self._thread])[-4:]
                self._place = " > ".join(f"{Path(one.filename).name}:{one.lineno}" for one in frames)


if __name__ == "__main__":
    import noderuntime.__main__

    Watch().install()
    noderuntime.__main__.main()
