"""The process that unpacks layers: reads jobs from a socket, and ends when that is closed.

It imports little, because that stays in memory, and it gets its memory bounded: whatever a
layer makes it do, it will not take the node with it.
"""

from __future__ import annotations

import os
import resource
import select
import socket
from contextlib import suppress
from threading import Thread

from noderuntime.core.errors import Internal, NoderuntimeError, ResourceExhausted, host_error
from noderuntime.node.layers import job, wire
from noderuntime.node.layers.tar.limits import Limits

_MEMORY = 512 << 20
"""Bytes: zstd's largest window, what Limits allow to keep, and Python itself take half of it."""


def main(line: socket.socket) -> None:
    """Work until nobody wants more."""
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    Thread(target=_end_with, args=(line.fileno(),), daemon=True).start()
    with suppress(ConnectionError, EOFError):
        Worker(line).run()


def _end_with(line: int) -> None:
    """End the process, whatever it is at, once the other end is closed: the next daemon may clean up."""
    hangup = select.poll()
    hangup.register(line, 0)
    hangup.poll()
    os._exit(0)


class Worker:
    """One end of the socket; the other is a :class:`noderuntime.node.layers.pool.Unpackers`."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def run(self) -> None:
        """Take one job after the other; EOFError or ConnectionError when the line is closed."""
        while True:
            head, fds, _, _ = socket.recv_fds(self._line, wire.LENGTH.size, 1, socket.MSG_WAITALL)
            if not head:
                raise EOFError
            _, target, *limits = self._body(head)
            answer = self._unpack(fds[0], target, Limits(*limits))
            os.close(fds[0])
            self._say(answer)

    def _unpack(self, fd: int, target: str, limits: Limits) -> wire.Message:
        try:
            return ["unpacked", *job.unpack(fd, self._more, target, limits)]
        except NoderuntimeError as error:
            return wire.failure(error)
        except OSError as error:
            return wire.failure(host_error("unpack a layer", error))
        except MemoryError:
            return wire.failure(ResourceExhausted("unpacking the layer takes more memory than a worker has"))
        except Exception as error:  # a fault of ours: the caller shall know, and the worker goes on
            return wire.failure(Internal(f"unpacking the layer failed: {error!r}"))

    def _more(self, offset: int) -> tuple[int, bool]:
        self._say(["beyond", offset])
        _, size, complete = self._body(self._receive(wire.LENGTH.size))
        return size, complete

    def _say(self, message: wire.Message) -> None:
        self._line.sendall(wire.packed(message))

    def _body(self, head: bytes) -> wire.Message:
        return wire.unpacked(self._receive(*wire.LENGTH.unpack(head)))

    def _receive(self, count: int) -> bytes:
        data = self._line.recv(count, socket.MSG_WAITALL)
        if len(data) < count:
            raise EOFError
        return data
