"""The daemon's pool of worker processes that unpack layers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from noderuntime.core import tasks
from noderuntime.core.blocking import IMAGES
from noderuntime.core.errors import DeadlineExceeded, Internal
from noderuntime.node.host.process import readable
from noderuntime.node.layers import wire
from noderuntime.node.layers.decompress import check_media_type
from noderuntime.node.layers.growth import Blob
from noderuntime.node.layers.spawner import WorkerSpawner
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS, Limits, Unpacked

_LARGE = 1 << 16
"""Messages of this size or more are parsed in a thread: with many implied directories, parsing takes long."""
_IDLE_SECONDS = 10.0
_DEATH_SECONDS = 30.0
"""Seconds within which a killed process must exit; it can be blocked in a system call of a filesystem."""


class Unpackers:
    """A pool of worker processes, started on demand and kept while idle. For use on one event loop."""

    def __init__(self, workers: int | None = None, *, idle_seconds: float = _IDLE_SECONDS) -> None:
        """Use at most ``workers`` processes. Default: the number of processors, at least two."""
        self._slots = asyncio.Semaphore(workers or max(2, os.cpu_count() or 1))
        self._idle_seconds = idle_seconds
        self._idle: dict[_Worker, asyncio.TimerHandle] = {}
        self._killing: set[asyncio.Task[None]] = set()
        self._spawner = WorkerSpawner()

    async def prepare(self) -> None:
        """Start the process that workers are forked from, so that the first layer does not wait for it."""
        await self._spawner.prepare()

    async def expect(self) -> None:
        """Start a worker in advance for an expected layer, unless a worker is idle."""
        if not self._idle and not self._slots.locked():
            async with self._slots:
                self._keep(_Worker(*await self._spawner.worker()))

    async def unpack(
        self, blob: Blob, target: Path, media_type: str, limits: Limits = DEFAULT_LIMITS
    ) -> Unpacked:
        """Unpack a layer into an existing, empty directory. The blob may still be growing.

        Raises InvalidArgument for an invalid archive or an unsupported media type, ResourceExhausted for
        an exceeded limit or a full disk, HostError for other errors of the kernel, Internal if the worker
        died, and the errors of :meth:`Blob.beyond`. After an error or a cancellation no process writes to
        the target; the caller must remove it.
        """
        check_media_type(media_type)
        async with self._slots:
            worker = self._take_idle() or _Worker(*await self._spawner.worker())
            try:
                answer = await worker.unpack(blob, target, limits)
            except BaseException:
                await tasks.finish(worker.kill(), name="kill an unpack worker")
                raise
            self._keep(worker)
        if answer[0] == "failed":
            raise wire.error_of(*answer[1:])
        done = Unpacked(*answer[1:])
        return done._replace(implied=tuple(done.implied))

    async def close(self) -> None:
        """Kill the idle workers. Callers of :meth:`unpack` must have returned or been cancelled."""
        while (worker := self._take_idle()) is not None:
            self._kill(worker)
        await tasks.settle(*self._killing)
        await self._spawner.close()

    def _take_idle(self) -> _Worker | None:
        """Remove and return the worker that was used last, or None."""
        while self._idle:
            worker, timer = self._idle.popitem()
            timer.cancel()
            if worker.is_alive():
                return worker
            self._kill(worker)
        return None

    def _keep(self, worker: _Worker) -> None:
        timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire, worker)
        self._idle[worker] = timer

    def _retire(self, worker: _Worker) -> None:
        del self._idle[worker]
        self._kill(worker)

    def _kill(self, worker: _Worker) -> None:
        task = tasks.background(worker.kill(), name="kill an unpack worker")
        self._killing.add(task)
        task.add_done_callback(self._killing.discard)


class _Worker:
    """A worker process and the daemon's end of the socket to it."""

    def __init__(self, connection: socket.socket, pidfd: int) -> None:
        self._connection = connection
        self._pidfd = pidfd
        self._loop = asyncio.get_running_loop()

    async def unpack(self, blob: Blob, target: Path, limits: Limits) -> wire.Message:
        """Run a job, and answer the worker's requests for the size of the growing file."""
        try:
            job = wire.encode(["unpack", os.fspath(target), *limits])
            socket.send_fds(self._connection, [job], [blob.fileno()])
            while (message := await self._receive())[0] == "beyond":
                size, complete = await blob.beyond(message[1])
                await self._loop.sock_sendall(self._connection, wire.encode(["available", size, complete]))
            return message
        except (ConnectionError, EOFError) as error:
            raise Internal("a worker process that unpacks layers died") from error

    def is_alive(self) -> bool:
        """Return whether the process still has its end of the socket open."""
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    async def kill(self) -> None:
        """Kill the process and wait until it has exited. DeadlineExceeded after 30 seconds."""
        self._connection.close()
        try:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            async with asyncio.timeout(_DEATH_SECONDS):
                await readable(self._pidfd)
        except TimeoutError:
            raise DeadlineExceeded(f"a killed worker did not exit within {_DEATH_SECONDS:g} s") from None
        finally:
            os.close(self._pidfd)

    async def _receive(self) -> wire.Message:
        (length,) = wire.LENGTH.unpack(await self._read(wire.LENGTH.size))
        body = await self._read(length)
        if length < _LARGE:
            return wire.decode(body)
        return await IMAGES.run(wire.decode, body)

    async def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = await self._loop.sock_recv(self._connection, count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)
