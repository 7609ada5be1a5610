"""Creates worker processes: starts a template process once, which forks the workers."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys

from noderuntime.core import tasks
from noderuntime.core.errors import HostError, Internal, os_errors
from noderuntime.node.host.process import readable
from noderuntime.node.host.spawn import Child, Spawner

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from noderuntime.node.layers.template import main; main()"
"""Passes this process's sys.path on, which saves the search for site-packages (10 ms)."""
_STDERR = 2
"""The template and its workers write failures of their start to the daemon's stderr."""


class WorkerSpawner:
    """A factory of workers. For use on one event loop."""

    def __init__(self) -> None:
        self._template: _Template | None = None
        self._lock = asyncio.Lock()
        self._spawner = Spawner()

    async def prepare(self) -> None:
        """Start the template, if it is not running, without waiting until it is ready."""
        async with self._lock:
            await self._running_template()

    async def worker(self) -> tuple[socket.socket, int]:
        """Create a worker; return the daemon's end of its socket, and its pidfd. The caller must close both.

        HostError if the kernel cannot fork a process, Internal if a restarted template dies too.
        """
        async with self._lock:
            try:
                return await self._worker()
            except Internal:  # the template had died
                return await self._worker()

    async def close(self) -> None:
        """Kill the template. Its workers keep running."""
        async with self._lock:
            await self._kill()

    async def _worker(self) -> tuple[socket.socket, int]:
        template = await self._running_template()
        daemon_end, remote_end = _socket_pair()
        try:
            with remote_end:
                return daemon_end, await template.fork(remote_end)
        except BaseException as error:
            daemon_end.close()  # a worker that was forked exits then
            if not isinstance(error, HostError):
                await self._kill()
            raise

    async def _running_template(self) -> _Template:
        if self._template is None:
            self._template = await _Template.start(self._spawner)
        return self._template

    async def _kill(self) -> None:
        template, self._template = self._template, None
        if template is not None:
            await tasks.finish(template.kill(), name="kill the template of unpack workers")


class _Template:
    """The template process and the daemon's end of the socket to it."""

    def __init__(self, child: Child, connection: socket.socket) -> None:
        self._child = child
        self._connection = connection

    @classmethod
    async def start(cls, spawner: Spawner) -> _Template:
        """Start a template. HostError if the interpreter cannot be started."""
        daemon_end, remote_end = _socket_pair()
        argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, *filter(None, sys.path)]
        try:
            with remote_end:
                child = await spawner.spawn(argv, stdin=remote_end.fileno(), stderr=_STDERR)
        except BaseException:
            daemon_end.close()
            raise
        return cls(child, daemon_end)

    async def fork(self, remote_end: socket.socket) -> int:
        """Fork a worker with the other end of a socket, and return its pidfd."""
        try:
            socket.send_fds(self._connection, [b"\0"], [remote_end.fileno()])
            await readable(self._connection.fileno())
            answer, fds, _, _ = socket.recv_fds(self._connection, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError as error:
            raise Internal("the template process of unpack workers died") from error
        if not answer:
            raise Internal("the template process of unpack workers died")
        if not fds:
            failure = answer[0] or errno.EMFILE  # the kernel drops a pidfd for which there is no room
            raise HostError("fork an unpack worker", failure, os.strerror(failure))
        return fds[0]

    async def kill(self) -> None:
        """Kill the process and wait until it has exited."""
        self._connection.close()
        await self._child.end()


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, the first of them non-blocking."""
    with os_errors("make a socket"):
        daemon_end, remote_end = socket.socketpair()
    daemon_end.setblocking(False)
    return daemon_end, remote_end
