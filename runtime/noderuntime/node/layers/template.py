"""The process that workers are forked from: it has imported what they need, which takes a Python 40 ms.

It reads no layer. Whoever is forked has one thread, no secret and nothing that another worker left.

=========  ============================  ==================================================
who        says                          when
=========  ============================  ==================================================
daemon     one byte and a socket         it wants a worker at the other end of that socket
template   ``0`` and the worker's pidfd  it is there
template   an errno                      the kernel made none
=========  ============================  ==================================================
"""

from __future__ import annotations

import gc
import os
import select
import socket
from contextlib import suppress

from isal import igzip_lib  # noqa: F401

from noderuntime.node.layers import worker
from noderuntime.node.layers.zstandard import zstd  # noqa: F401 - so that no worker has to load it, as the next one


def main() -> None:
    """Fork workers until the daemon, at the other end of standard input, closes it."""
    gc.freeze()  # what is here stays shared with the workers
    line = socket.socket(fileno=0)
    with suppress(ConnectionError):
        mine = Template(line).run()
        line.close()
        if mine is not None:
            worker.main(mine)


class Template:
    """One end of a socket; the other is a :class:`noderuntime.node.layers.spawner.WorkerSpawner`."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._pidfds: set[int] = set()
        self._events = select.poll()
        self._events.register(line, select.POLLIN)

    def run(self) -> socket.socket | None:
        """Return a worker's socket in each worker, and None when nobody wants any more."""
        while True:
            for fd, _ in self._events.poll():
                if fd in self._pidfds:
                    self._bury(fd)
                    continue
                data, fds, _, _ = socket.recv_fds(self._line, 1, 1)
                if not data:
                    return None
                with socket.socket(fileno=fds[0]) as theirs:
                    if not self._fork():
                        return theirs.dup()

    def _fork(self) -> bool:
        """Make a worker and tell the daemon; False in the worker."""
        try:
            pid = os.fork()
            if not pid:
                for fd in self._pidfds:
                    os.close(fd)
                return False
            os.setpgid(pid, pid)  # what ends this process's group is not to end a worker that is at work
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            self._line.send(bytes([error.errno or 0]))
            return True
        self._pidfds.add(pidfd)
        self._events.register(pidfd, select.POLLIN)
        socket.send_fds(self._line, [b"\0"], [pidfd])
        return True

    def _bury(self, pidfd: int) -> None:
        self._events.unregister(pidfd)
        self._pidfds.remove(pidfd)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
