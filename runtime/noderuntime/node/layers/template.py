"""The template process that workers are forked from. It has imported their modules, which takes 40 ms.

The template reads no layer, so a forked worker has one thread, no secrets and no state of another worker.

=========  ============================  ================================================
sender     message                       meaning
=========  ============================  ================================================
daemon     one byte and a socket         fork a worker with this socket
template   ``0`` and the worker's pidfd  the worker was forked
template   an errno                      the fork failed
=========  ============================  ================================================
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
from contextlib import suppress

from isal import igzip_lib  # noqa: F401

from noderuntime.node.layers import worker
from noderuntime.node.layers.zstandard import zstd  # noqa: F401 - as isal: loaded once for all workers


def main() -> None:
    """Fork workers until the daemon closes its end of the socket, which is standard input."""
    gc.freeze()  # keeps the memory of these objects shared with the workers
    connection = socket.socket(fileno=0)
    with suppress(ConnectionError):
        own = Template(connection).run()
        connection.close()
        if own is not None:
            worker.main(own)


class Template:
    """The template's end of the socket to a :class:`noderuntime.node.layers.spawner.WorkerSpawner`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pidfds: set[int] = set()
        self._events = select.poll()
        self._events.register(connection, select.POLLIN)

    def run(self) -> socket.socket | None:
        """Return the worker's socket in each forked worker, and None in the template at the end."""
        while True:
            for fd, _ in self._events.poll():
                if fd in self._pidfds:
                    self._reap(fd)
                    continue
                data, fds, _, _ = socket.recv_fds(self._connection, 1, 1)
                if not data:
                    return None
                if not fds:  # the kernel drops a descriptor for which there is no room
                    self._connection.send(bytes([errno.EMFILE]))
                    continue
                with socket.socket(fileno=fds[0]) as worker_end:
                    if not self._fork():
                        return worker_end.dup()

    def _fork(self) -> bool:
        """Fork a worker and report to the daemon. Return False in the worker, True in the template."""
        try:
            pid = os.fork()
            if not pid:
                for fd in self._pidfds:
                    os.close(fd)
                return False
            pidfd = _adopt(pid)
        except OSError as error:
            self._connection.send(bytes([error.errno or 0]))
            return True
        self._pidfds.add(pidfd)
        self._events.register(pidfd, select.POLLIN)
        socket.send_fds(self._connection, [b"\0"], [pidfd])
        return True

    def _reap(self, pidfd: int) -> None:
        self._events.unregister(pidfd)
        self._pidfds.remove(pidfd)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def _adopt(worker: int) -> int:
    """Return the pidfd of a forked worker; a worker that gets none is killed and reaped."""
    try:
        os.setpgid(worker, worker)  # a signal to the template's process group must not reach busy workers
        return os.pidfd_open(worker)
    except OSError:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        raise
