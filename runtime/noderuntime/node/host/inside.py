"""The process that makes namespaces which belong to a user namespace, and says so on its standard input.

A thread cannot move into a user namespace, so this is a program of its own; it imports little.

    order (kinds, hostname, sysctls) ──► unshare ──► "made" ──► [its IDs are mapped from outside]
                                     ──► furnish, as root inside ──► "furnished" ──► [they are pinned] ──► end
"""

from __future__ import annotations

import json
import os
import socket
from typing import TextIO

from noderuntime.core.errors import HostError, InvalidArgument
from noderuntime.node.host import syscalls
from noderuntime.node.host.furnish import clone_flags, configure


def main() -> None:
    """Do as ordered; the other end's going away, at any point, is the end."""
    with socket.socket(fileno=0) as line, line.makefile("rw", encoding="ascii") as file:
        try:
            _work(file)
            _say(file)
        except InvalidArgument as error:
            _say(file, refused=str(error))
        except (OSError, HostError) as error:
            _say(file, errno=error.errno or 0, error=str(error))
        file.readline()


def _work(file: TextIO) -> None:
    order = json.loads(file.readline())
    syscalls.unshare(syscalls.CLONE_NEWUSER | clone_flags(order["kinds"]))
    _say(file)
    if not file.readline():
        os._exit(1)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    configure(order["kinds"], order["hostname"], order["sysctls"])


def _say(file: TextIO, **failure: object) -> None:
    file.write(json.dumps(failure) + "\n")
    file.flush()
