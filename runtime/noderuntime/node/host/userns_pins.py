"""Namespaces that a user namespace owns: a process creates them, and bind mounts keep them.

See :mod:`noderuntime.node.host.inside` for the process and for the protocol between it and the daemon.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from noderuntime.core import tasks
from noderuntime.core.blocking import apart
from noderuntime.core.errors import (
    DeadlineExceeded,
    HostError,
    Internal,
    InvalidArgument,
    host_error,
    os_errors,
)
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import IdRange, NamespaceKind, UserNamespace
from noderuntime.node.host.namespaces import reserved
from noderuntime.node.host.spawn import Spawner
from noderuntime.node.host.sysctl_names import sysctl_settings

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from noderuntime.node.host.inside import main; main()"
"""Takes the daemon's ``sys.path`` as arguments, so that the interpreter does not search for site-packages."""
_STDERR = 2
_TIMEOUT = 10.0
_CHUNK = 1 << 16


async def pin_namespaces(
    spawner: Spawner,
    user: UserNamespace,
    pins: Mapping[NamespaceKind, Path],
    *,
    hostname: str | None = None,
    sysctls: Mapping[str, str] | None = None,
) -> None:
    """Create a user namespace and the namespaces that it owns, and pin each at its path.

    The root of the user namespace writes the sysctls, so IDs in their values are those of the namespace.
    InvalidArgument as for :func:`noderuntime.node.host.namespaces.pin_namespaces`, DeadlineExceeded after
    10 s.
    """
    request = {"kinds": list(pins), "hostname": hostname, "sysctls": sysctl_settings(pins, sysctls)}
    with os_errors("make a socket"):
        own_end, child_end = socket.socketpair()
    own_end.setblocking(False)
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, *filter(None, sys.path)]
    with own_end:
        with child_end:
            child = await spawner.spawn(argv, stdin=child_end.fileno(), stderr=_STDERR)
        try:
            async with asyncio.timeout(_TIMEOUT):
                await _call(own_end, request)
                await apart(lambda: _map_ids(child.pid, user), what="map IDs")
                await _call(own_end, "mapped")
            await apart(
                lambda: _bind(child.pid, [("user", user.pin), *pins.items()]),
                what="pin namespaces",
                seconds=math.inf,  # a bind mount that succeeded after a deadline would be left behind
            )
        except TimeoutError:
            raise DeadlineExceeded(f"namespaces were not created within {_TIMEOUT:g} s") from None
        finally:
            await tasks.finish(child.end(), name="end the process that makes namespaces")


async def _call(line: socket.socket, request: object) -> None:
    """Send a request and read the reply, which is empty or a failure."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(line, json.dumps(request).encode() + b"\n")
        reply = b""
        while not reply.endswith(b"\n"):
            piece = await loop.sock_recv(line, _CHUNK)
            if not piece:
                raise Internal("the process that creates the namespaces ended unexpectedly")
            reply += piece
    except ConnectionError as error:
        raise Internal("the process that creates the namespaces ended unexpectedly") from error
    failure = json.loads(reply)
    if "refused" in failure:
        raise InvalidArgument(failure["refused"])
    if failure:
        raise HostError("make namespaces", failure["errno"], failure["error"])


def _map_ids(pid: int, user: UserNamespace) -> None:
    for name, ids in (("uid_map", user.uids), ("gid_map", user.gids)):
        try:
            Path(f"/proc/{pid}/{name}").write_text(_line(ids), encoding="ascii")
        except OSError as error:
            raise host_error(f"map IDs {_line(ids)}", error) from error


def _line(ids: IdRange) -> str:
    return f"{ids.inside} {ids.outside} {ids.size}"


def _bind(pid: int, pins: Sequence[tuple[str, Path]]) -> None:
    try:
        with reserved(path for _, path in pins):
            for kind, path in pins:
                syscalls.mount(f"/proc/{pid}/ns/{kind}", str(path), "", syscalls.MS_BIND)
    except OSError as error:
        raise host_error("pin namespaces", error) from error
