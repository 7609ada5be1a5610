"""Namespaces without a process: a thread creates them, and bind mounts keep them.

The thread calls unshare(2), configures the namespaces (``lo``, hostname, sysctls), binds its
``/proc/thread-self/ns/*`` to the pins, and ends.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from noderuntime.core.blocking import apart
from noderuntime.core.errors import HostError, InvalidArgument, host_error
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import NamespaceKind
from noderuntime.node.host.mount import detach
from noderuntime.node.host.namespace_setup import clone_flags, configure

_SYSCTL_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_IPC_SYSCTLS = re.compile(r"kernel/(shm[a-z_]+|msg[a-z_]+|sem|sem_next_id|auto_msgmni)|fs/mqueue/[a-z_]+")


async def pin_namespaces(
    pins: Mapping[NamespaceKind, Path],
    *,
    hostname: str | None = None,
    sysctls: Mapping[str, str] | None = None,
) -> None:
    """Create namespaces and pin each at its path, a file that must not exist yet.

    Creates missing parent directories of the pins. InvalidArgument for a sysctl
    that does not belong to one of the new namespaces, because it would change the node.
    """
    settings = sysctl_settings(pins, sysctls)
    await apart(lambda: _pin(pins, hostname, settings), what="make namespaces", seconds=math.inf)


async def unpin_namespaces(pins: Sequence[Path]) -> None:
    """Unmount and remove the pins. No error if they are missing."""
    await apart(lambda: _unpin(pins), what="unpin namespaces")


async def read_in_network_namespaces(
    pins: Iterable[Path], file: str, limit: int = 1 << 16
) -> dict[Path, bytes]:
    """Return the content of a ``/proc`` file in each network namespace. Omits namespaces that are gone.

    One thread enters them all, so 50 pods cost 50 calls of setns(2) and no process.
    """
    wanted = tuple(pins)
    what = f"read {file} of pods"
    return await apart(lambda: _visit(wanted, file, limit), what=what, subject=what, abandon=True)


def sysctl_settings(pins: Collection[NamespaceKind], sysctls: Mapping[str, str] | None) -> dict[str, str]:
    """Return the paths of sysctls below ``/proc/sys``. InvalidArgument for one of no new namespace."""
    return {sysctl_path(name, pins): value for name, value in (sysctls or {}).items()}


def sysctl_path(name: str, pins: Iterable[NamespaceKind]) -> str:
    """Return the path of a sysctl below ``/proc/sys``. InvalidArgument if it is not of these namespaces.

    The first separator in the name decides whether dots or slashes are separators (sysctl.d(5)).
    """
    first = re.search(r"[./]", name)
    path = name.translate(str.maketrans("./", "/.")) if first and first.group() == "." else name
    if not all(_SYSCTL_PART.fullmatch(part) for part in path.split("/")):
        raise InvalidArgument(f"sysctl {name[:80]!r} is not a valid name")
    kinds = set(pins)
    if (
        ("net" in kinds and path.startswith("net/"))
        or ("ipc" in kinds and _IPC_SYSCTLS.fullmatch(path))
        or ("uts" in kinds and path == "kernel/domainname")
    ):
        return path
    raise InvalidArgument(f"sysctl {name[:80]!r} does not belong to a namespace of the pod")


@contextmanager
def reserved(pins: Iterable[Path]) -> Iterator[None]:
    """Create the files to which namespaces are bound. If the block fails, unmount and remove them."""
    with ExitStack() as undo:
        for path in pins:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
            undo.callback(_unpin, [path])
        yield
        undo.pop_all()


def _pin(pins: Mapping[NamespaceKind, Path], hostname: str | None, settings: Mapping[str, str]) -> None:
    try:
        with reserved(pins.values()):
            syscalls.unshare(clone_flags(pins))
            configure(pins, hostname, settings)
            for kind, path in pins.items():
                syscalls.mount(f"/proc/thread-self/ns/{kind}", str(path), "", syscalls.MS_BIND)
    except OSError as error:
        raise host_error("make namespaces", error) from error


def _unpin(pins: Sequence[Path]) -> None:
    for path in pins:
        detach(str(path))
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise host_error(f"remove namespace pin {path}", error) from error


def _visit(pins: Sequence[Path], file: str, limit: int) -> dict[Path, bytes]:
    seen: dict[Path, bytes] = {}
    for pin in pins:
        try:
            with open(pin, "rb", buffering=0) as namespace:
                syscalls.setns(namespace.fileno(), syscalls.CLONE_NEWNET)
            with open(file, "rb") as content:
                seen[pin] = content.read(limit)
        except (OSError, HostError):
            continue
    return seen
