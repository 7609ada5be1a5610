"""Names of sysctls, and the namespaces that they belong to.

The first separator in a name decides whether dots or slashes are separators (sysctl.d(5)).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from noderuntime.core.errors import InvalidArgument

_SWAPPED = str.maketrans("./", "/.")
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_OF_INTERFACE = re.compile(r"net/[a-z0-9]+/(conf|neigh)/(?!(all|default|lo)/)[^/]+/.+")
_OF_IPC = re.compile(r"kernel/(shm[a-z_]+|msg[a-z_]+|sem|sem_next_id|auto_msgmni)|fs/mqueue/[a-z_]+")


def sysctl_settings(kinds: Collection[str], sysctls: Mapping[str, str] | None) -> dict[str, str]:
    """Return the paths of sysctls below ``/proc/sys``. InvalidArgument for one of no new namespace.

    If two names mean the same sysctl, the later value wins.
    """
    return {sysctl_path(name, kinds): value for name, value in (sysctls or {}).items()}


def sysctl_path(name: str, kinds: Iterable[str]) -> str:
    """Return the path of a sysctl below ``/proc/sys``. InvalidArgument if it is not of these namespaces."""
    path = _path(name)
    if not all(_PART.fullmatch(part) for part in path.split("/")):
        raise InvalidArgument(f"sysctl {name[:80]!r} is not a valid name")
    own = set(kinds)
    if (
        ("net" in own and path.startswith("net/"))
        or ("ipc" in own and _OF_IPC.fullmatch(path))
        or ("uts" in own and path == "kernel/domainname")
    ):
        return path
    raise InvalidArgument(f"sysctl {name[:80]!r} does not belong to a namespace of the pod")


def is_of_interface(name: str) -> bool:
    """Return whether a sysctl is that of one interface other than ``lo``, which a new namespace lacks."""
    return _OF_INTERFACE.fullmatch(_path(name)) is not None


def dotted(path: str) -> str:
    """Return the name, with dots as separators, of a path below ``/proc/sys``."""
    return path.translate(_SWAPPED)


def _path(name: str) -> str:
    first = re.search(r"[./]", name)
    return name.translate(_SWAPPED) if first and first.group() == "." else name
