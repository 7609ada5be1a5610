"""Where the daemon gets its worker processes from: a template that forks them, started once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from noderuntime.core import tasks
from noderuntime.core.errors import HostError, Internal
from noderuntime.node.host.process import readable
from noderuntime.node.host.spawn import Child, Spawner

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from noderuntime.node.layers.template import main; main()"
"""Our own search path is handed over, so that no site-packages have to be looked for (10 ms)."""
_STDERR = 2
"""Where template and workers complain when they cannot even start: where the daemon does."""
_DEATH_SECONDS = 30.0


class WorkerSpawner:
    """Makes workers; for use on one event loop."""

    def __init__(self) -> None:
        self._template: _Template | None = None
        self._one_at_a_time = asyncio.Lock()
        self._spawner = Spawner()

    async def prepare(self) -> None:
        """Start the template, unless there is one: it gets ready while something else is done."""
        async with self._one_at_a_time:
            await self._living()

    async def worker(self) -> tuple[socket.socket, int]:
        """Make a worker: our end of the socket to it, and its pidfd; both are the caller's to close.

        HostError when the kernel makes none, Internal when also a new template dies of it.
        """
        async with self._one_at_a_time:
            try:
                return await self._worker()
            except Internal:  # the template had died before
                return await self._worker()

    async def close(self) -> None:
        """End the template; its workers live on."""
        async with self._one_at_a_time:
            await self._end()

    async def _worker(self) -> tuple[socket.socket, int]:
        template = await self._living()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                return ours, await template.fork(theirs)
        except BaseException as error:
            ours.close()  # which ends what may have become of it
            if not isinstance(error, HostError):
                await self._end()
            raise

    async def _living(self) -> _Template:
        if self._template is None:
            self._template = await _Template.start(self._spawner)
        return self._template

    async def _end(self) -> None:
        template, self._template = self._template, None
        if template is not None:
            await tasks.finish(template.end(), name="end the template of unpack workers")


class _Template:
    """The process, and our end of the socket to it."""

    def __init__(self, child: Child, line: socket.socket) -> None:
        self._child = child
        self._line = line

    @classmethod
    async def start(cls, spawner: Spawner) -> _Template:
        """Start a process; HostError when that is impossible."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, *filter(None, sys.path)]
        try:
            with theirs:
                child = await spawner.spawn(argv, stdin=theirs.fileno(), stderr=_STDERR)
        except BaseException:
            ours.close()
            raise
        return cls(child, ours)

    async def fork(self, theirs: socket.socket) -> int:
        """Have a worker made, and return its pidfd."""
        try:
            socket.send_fds(self._line, [b"\0"], [theirs.fileno()])
            await readable(self._line.fileno())
            said, fds, _, _ = socket.recv_fds(self._line, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError as error:
            raise Internal("the process that makes workers died") from error
        if not said:
            raise Internal("the process that makes workers died")
        if not fds:
            raise HostError("make a worker", said[0], os.strerror(said[0]))
        return fds[0]

    async def end(self) -> None:
        """Kill the process, and wait until it is gone."""
        self._line.close()
        os.kill(self._child.pid, signal.SIGKILL)
        await self._child.wait(_DEATH_SECONDS)
