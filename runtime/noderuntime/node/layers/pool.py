"""The workers that unpack layers, as the daemon sees them."""

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
"""Bytes of a message that takes too long to parse on the event loop: it has many implied directories."""
_IDLE_SECONDS = 10.0
_DEATH_SECONDS = 30.0
"""How long a killed process may take to go: it may be deep in a filesystem."""


class Unpackers:
    """Worker processes, started when needed and kept for a while. For use on one event loop."""

    def __init__(self, workers: int | None = None, *, idle_seconds: float = _IDLE_SECONDS) -> None:
        """Use at most ``workers`` processes; by default as many as there are processors, at least two."""
        self._free = asyncio.Semaphore(workers or max(2, os.cpu_count() or 1))
        self._idle_seconds = idle_seconds
        self._idle: dict[_Worker, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._spawner = WorkerSpawner()

    async def prepare(self) -> None:
        """Get ready for the first layer, so that it will not wait for a Python to start."""
        await self._spawner.prepare()

    async def expect(self) -> None:
        """Start a worker for a layer that will come, unless one waits: to get ready takes it a moment."""
        if not self._idle and not self._free.locked():
            async with self._free:
                self._keep(_Worker(*await self._spawner.worker()))

    async def unpack(
        self, blob: Blob, target: Path, media_type: str, limits: Limits = DEFAULT_LIMITS
    ) -> Unpacked:
        """Unpack a layer into an empty directory that exists, while the blob may still be growing.

        InvalidArgument for a layer that is no proper archive or of a type that cannot be read,
        ResourceExhausted for a limit or a full disk, HostError for whatever else the kernel refused,
        Internal when the worker died, and whatever :meth:`Blob.beyond` raised. After an
        error, and after a cancellation, nobody writes to the target any more; what is there is the caller's
        to remove.
        """
        check_media_type(media_type)
        async with self._free:
            worker = self._warm() or _Worker(*await self._spawner.worker())
            try:
                answer = await worker.unpack(blob, target, limits)
            except BaseException:
                await tasks.finish(worker.end(), name="end an unpack worker")
                raise
            self._keep(worker)
        if answer[0] == "failed":
            raise wire.error_of(*answer[1:])
        done = Unpacked(*answer[1:])
        return done._replace(implied=tuple(done.implied))

    async def close(self) -> None:
        """End the workers that have nothing to do; who still waits for one is to be cancelled first."""
        while (worker := self._warm()) is not None:
            self._end(worker)
        await tasks.settle(*self._ending)
        await self._spawner.close()

    def _warm(self) -> _Worker | None:
        """Take the worker that was last at work, if there is one."""
        while self._idle:
            worker, timer = self._idle.popitem()
            timer.cancel()
            if worker.alive():
                return worker
            self._end(worker)
        return None

    def _keep(self, worker: _Worker) -> None:
        later = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire, worker)
        self._idle[worker] = later

    def _retire(self, worker: _Worker) -> None:
        del self._idle[worker]
        self._end(worker)

    def _end(self, worker: _Worker) -> None:
        task = tasks.background(worker.end(), name="end an unpack worker")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Worker:
    """One process, and our end of the socket to it."""

    def __init__(self, line: socket.socket, pidfd: int) -> None:
        self._line = line
        self._pidfd = pidfd
        self._loop = asyncio.get_running_loop()

    async def unpack(self, blob: Blob, target: Path, limits: Limits) -> wire.Message:
        """Have a layer unpacked, and tell how far its file has grown whenever asked."""
        try:
            job = wire.packed(["unpack", os.fspath(target), *limits])
            socket.send_fds(self._line, [job], [blob.fileno()])
            while (message := await self._receive())[0] == "beyond":
                size, complete = await blob.beyond(message[1])
                await self._loop.sock_sendall(self._line, wire.packed(["there", size, complete]))
            return message
        except (ConnectionError, EOFError) as error:
            raise Internal("a process that unpacks layers died") from error

    def alive(self) -> bool:
        """Tell whether it still listens."""
        try:
            return self._line.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    async def end(self) -> None:
        """Kill the process, and wait until it is gone and writes nothing any more."""
        self._line.close()
        try:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            async with asyncio.timeout(_DEATH_SECONDS):
                await readable(self._pidfd)
        except TimeoutError:
            raise DeadlineExceeded(f"a killed worker did not end within {_DEATH_SECONDS:g} s") from None
        finally:
            os.close(self._pidfd)

    async def _receive(self) -> wire.Message:
        (length,) = wire.LENGTH.unpack(await self._read(wire.LENGTH.size))
        body = await self._read(length)
        if length < _LARGE:
            return wire.unpacked(body)
        return await IMAGES.run(wire.unpacked, body)

    async def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = await self._loop.sock_recv(self._line, count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)
