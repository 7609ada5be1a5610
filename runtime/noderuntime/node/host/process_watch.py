"""Watches for the ends of processes on the event loop: one pidfd per process, no task and no thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from noderuntime.core import log
from noderuntime.core.errors import HostError
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.process import identify, open_pidfd

_log = log.get(__name__)

_POLL_SECONDS = 1.0


class Watch:
    """A call of ``on_end``, once, when a process ends, unless the watch is closed before.

    If no descriptor is left for a pidfd, it checks the PID once per second and retries.
    """

    def __init__(self, process: ProcessRef, on_end: Callable[[], None]) -> None:
        self._process = process
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._pidfd = -1
        self._timer: asyncio.Handle | None = None
        self._begin()

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _begin(self) -> None:
        try:
            pidfd = open_pidfd(self._process.pid)
            if pidfd is not None:
                self._pidfd = pidfd
                self._loop.add_reader(pidfd, self._ended)
                if identify(self._process.pid) == self._process:
                    return
        except HostError as error:
            self._poll(error)
        else:
            self._timer = self._loop.call_soon(self._ended)  # after the caller has received this watch

    def _poll(self, error: HostError) -> None:
        """Retry in a second. Without a descriptor only the existence of the PID can be checked."""
        self.close()
        try:
            os.kill(self._process.pid, 0)
        except ProcessLookupError:
            self._timer = self._loop.call_soon(self._ended)
        else:
            _log.warning("process is watched without a pidfd", pid=self._process.pid, error=error)
            self._timer = self._loop.call_later(_POLL_SECONDS, self._begin)

    def _ended(self) -> None:
        self.close()
        self._on_end()
