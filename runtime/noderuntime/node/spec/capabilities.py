"""Capabilities: the default set with the pod's additions and removals, limited to the daemon's own."""

from __future__ import annotations

from collections.abc import Iterable

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.validation import quoted

# In the order of their numbers, capabilities(7).
_ORDER = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
"""
_DEFAULT_NAMES = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
SYS_CHROOT KILL AUDIT_WRITE
"""
_NAMES = tuple(f"CAP_{name}" for name in _ORDER.split())
_DEFAULT = frozenset(f"CAP_{name}" for name in _DEFAULT_NAMES.split())
_ALL = "CAP_ALL"


def capability_set(context: api_pb2.LinuxContainerSecurityContext, available: int) -> list[str]:
    """Return the container's capabilities, ordered by number. ``available`` is the daemon's own mask.

    "ALL" is applied before single names, so that "drop ALL, add CHOWN" results in CHOWN.
    """
    node = {name for number, name in enumerate(_NAMES) if available >> number & 1}
    if context.privileged:
        return _ordered(node)
    add = _named(context.capabilities.add_capabilities)
    drop = _named(context.capabilities.drop_capabilities)
    chosen = set(node) if _ALL in add else set(_DEFAULT & node)
    if _ALL in drop:
        chosen.clear()
    return _ordered(((chosen | add) - drop - {_ALL}) & node)


def oci_capabilities(context: api_pb2.LinuxContainerSecurityContext, available: int) -> dict[str, list[str]]:
    """Return OCI ``process.capabilities``. Only ambient capabilities are inheritable."""
    chosen = capability_set(context, available)
    ambient = _ordered(_named(context.capabilities.add_ambient_capabilities) & set(chosen))
    sets = {"bounding": chosen, "effective": chosen, "permitted": chosen}
    return sets | ({"inheritable": ambient, "ambient": ambient} if ambient else {})


def _named(names: Iterable[str]) -> set[str]:
    """Return full names of capabilities, which pods write with or without ``CAP_``."""
    full = {"CAP_" + name.upper().removeprefix("CAP_") for name in names}
    for name in full:
        if name != _ALL and name not in _NAMES:
            raise InvalidArgument(f"capability {quoted(name)} is unknown")
    return full


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=_NAMES.index)
