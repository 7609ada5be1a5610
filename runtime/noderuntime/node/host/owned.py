"""Namespaces that belong to a user namespace: a process makes them, bind mounts keep them.

See :mod:`noderuntime.node.host.inside` for the process, and for what is said between us and it.
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
from noderuntime.node.host.namespaces import reserved, sysctl_settings
from noderuntime.node.host.spawn import Spawner

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from noderuntime.node.host.inside import main; main()"
"""Our own search path is handed over, so that no site-packages have to be looked for."""
_STDERR = 2
_PATIENCE = 10.0
_LONGEST = 1 << 16


async def pin_namespaces(
    spawner: Spawner,
    user: UserNamespace,
    pins: Mapping[NamespaceKind, Path],
    *,
    hostname: str | None = None,
    sysctls: Mapping[str, str] | None = None,
) -> None:
    """Make a user namespace and others that it owns, and bind each to its path.

    Sysctls are written by root inside: IDs in their values are those of the user namespace.
    """
    order = {"kinds": list(pins), "hostname": hostname, "sysctls": sysctl_settings(pins, sysctls)}
    with os_errors("make a socket"):
        ours, theirs = socket.socketpair()
    ours.setblocking(False)
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, *filter(None, sys.path)]
    with ours:
        with theirs:
            child = await spawner.spawn(argv, stdin=theirs.fileno(), stderr=_STDERR)
        try:
            async with asyncio.timeout(_PATIENCE):
                await _talk(ours, order)
                await apart(lambda: _map_ids(child.pid, user), what="map IDs")
                await _talk(ours, "mapped")
            await apart(
                lambda: _bind(child.pid, [("user", user.pin), *pins.items()]),
                what="pin namespaces",
                seconds=math.inf,  # a bind that came late would stay
            )
        except TimeoutError:
            raise DeadlineExceeded("making namespaces takes too long") from None
        finally:
            await tasks.finish(child.end(), name="end the process that makes namespaces")


async def _talk(line: socket.socket, words: object) -> None:
    """Say something and hear the answer, which is empty or a failure."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(line, json.dumps(words).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            piece = await loop.sock_recv(line, _LONGEST)
            if not piece:
                raise Internal("the process that makes namespaces died")
            answer += piece
    except ConnectionError as error:
        raise Internal("the process that makes namespaces died") from error
    failure = json.loads(answer)
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
