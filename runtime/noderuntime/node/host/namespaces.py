"""Namespaces without a process: a thread creates them, and bind mounts keep them.

The thread calls unshare(2), configures the namespaces (``lo``, hostname, sysctls), binds its
``/proc/thread-self/ns/*`` to the pins, and ends.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from noderuntime.core.blocking import apart
from noderuntime.core.errors import HostError, host_error
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import NamespaceKind
from noderuntime.node.host.mount import detach
from noderuntime.node.host.namespace_setup import clone_flags, configure, write_sysctls
from noderuntime.node.host.sysctl_names import sysctl_settings


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


async def set_sysctls(pin: Path, sysctls: Mapping[str, str]) -> None:
    """Write sysctls in a pinned network namespace.

    InvalidArgument names the one that the kernel lacks, rejects, or that is not of a network namespace.
    """
    settings = sysctl_settings({"net": pin}, sysctls)
    if settings:
        await apart(lambda: _write_inside(pin, settings), what=f"set sysctls in {pin}")


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


def _write_inside(pin: Path, settings: Mapping[str, str]) -> None:
    try:
        with open(pin, "rb", buffering=0) as namespace:
            syscalls.setns(namespace.fileno(), syscalls.CLONE_NEWNET)
    except OSError as error:
        raise host_error(f"enter {pin}", error) from error
    write_sysctls(settings)


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
