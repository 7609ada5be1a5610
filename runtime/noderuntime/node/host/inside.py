"""The process that creates a user namespace and the namespaces that it owns. Its stdin is a socket.

A thread of a multi-threaded process cannot create a user namespace, so this is a separate program. It imports
few modules. It receives lines of JSON and replies to each with an empty object, or with its failure:

    request (kinds, hostname, sysctls) ──► unshare ──► reply ──► [the daemon maps the IDs]
    "mapped" ──► configure, as root inside ──► reply ──► [the daemon pins the namespaces] ──► end
"""

from __future__ import annotations

import json
import os
import socket
from typing import TextIO

from noderuntime.core.errors import HostError, InvalidArgument
from noderuntime.node.host import syscalls
from noderuntime.node.host.namespace_setup import clone_flags, configure


def main() -> None:
    """Handle the requests on stdin. Exits when the other end is closed."""
    with socket.socket(fileno=0) as line, line.makefile("rw", encoding="ascii") as file:
        try:
            _handle(file)
            _reply(file)
        except InvalidArgument as error:
            _reply(file, refused=str(error))
        except (OSError, HostError) as error:
            _reply(file, errno=error.errno or 0, error=str(error))
        file.readline()


def _handle(file: TextIO) -> None:
    request = json.loads(file.readline())
    syscalls.unshare(syscalls.CLONE_NEWUSER | clone_flags(request["kinds"]))
    _reply(file)
    if not file.readline():
        os._exit(1)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    configure(request["kinds"], request["hostname"], request["sysctls"])


def _reply(file: TextIO, **failure: object) -> None:
    file.write(json.dumps(failure) + "\n")
    file.flush()
