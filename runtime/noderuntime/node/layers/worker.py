"""The worker process, which runs jobs from a socket and exits when the daemon closes it.

It imports few modules, to save memory, and its memory is limited, so that a hostile layer cannot exhaust
the node's.
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
"""Bytes. zstd's largest window, Limits.directory_bytes and Python itself need half of it."""


def main(connection: socket.socket) -> None:
    """Run jobs until the daemon closes the connection."""
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    Thread(target=_exit_on_hangup, args=(connection.fileno(),), daemon=True).start()
    with suppress(ConnectionError, EOFError):
        Worker(connection).run()


def _exit_on_hangup(connection: int) -> None:
    """Exit once the daemon closed its end, even during a job: the next daemon may remove the target."""
    hangup = select.poll()
    hangup.register(connection, 0)
    hangup.poll()
    os._exit(0)


class Worker:
    """The worker's end of the socket to a :class:`noderuntime.node.layers.pool.Unpackers`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def run(self) -> None:
        """Run jobs one after the other. EOFError or ConnectionError when the connection is closed."""
        while True:
            head, fds, _, _ = socket.recv_fds(self._connection, wire.LENGTH.size, 1, socket.MSG_WAITALL)
            if not head:
                raise EOFError
            _, target, *limits = self._body(head)
            answer = self._unpack(fds[0], target, Limits(*limits))
            os.close(fds[0])
            self._send(answer)

    def _unpack(self, fd: int, target: str, limits: Limits) -> wire.Message:
        try:
            return ["unpacked", *job.unpack(fd, self._more, target, limits)]
        except NoderuntimeError as error:
            return wire.failure(error)
        except OSError as error:
            return wire.failure(host_error("unpack a layer", error))
        except MemoryError:
            return wire.failure(
                ResourceExhausted(
                    f"unpacking the layer needs more than the worker's limit of {_MEMORY} bytes of memory"
                )
            )
        except Exception as error:  # a bug: report it, and keep the worker
            return wire.failure(Internal(f"unpacking the layer failed: {error!r}"))

    def _more(self, offset: int) -> tuple[int, bool]:
        self._send(["beyond", offset])
        _, size, complete = self._body(self._receive(wire.LENGTH.size))
        return size, complete

    def _send(self, message: wire.Message) -> None:
        self._connection.sendall(wire.encode(message))

    def _body(self, head: bytes) -> wire.Message:
        return wire.decode(self._receive(*wire.LENGTH.unpack(head)))

    def _receive(self, count: int) -> bytes:
        data = self._connection.recv(count, socket.MSG_WAITALL)
        if len(data) < count:
            raise EOFError
        return data
