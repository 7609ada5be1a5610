"""Limits that can never be: told by the caller's fault, before anything is made. Pure."""

from __future__ import annotations

import re

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.words import clean, shown

_RANGES = {
    "cpu_period": (1_000, 1_000_000),
    "cpu_quota": (1_000, (1 << 44) - 1),
    "cpu_shares": (2, 262_144),
    "memory_limit_in_bytes": (1, (1 << 63) - 1),
    "memory_swap_limit_in_bytes": (1, (1 << 63) - 1),
}
"""What the kernel takes. 0 leaves a limit as it is."""
_UNLIMITED = ("cpu_quota", "memory_limit_in_bytes", "memory_swap_limit_in_bytes")
"""Limits that -1 takes away."""
_CPUS = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?){0,1023}")
_PAGE_SIZE = re.compile(r"[1-9]\d{0,6}[KMGT]?B")
_FILE = re.compile(r"[a-z0-9]{1,32}(\.[A-Za-z0-9_]{1,64}){1,4}")
_NOT_A_CONTROLLER = "cgroup."
"""Files of every group (``cgroup.procs``), by which processes are moved and killed."""


def check_limits(limits: api_pb2.LinuxContainerResources) -> None:
    """Raise InvalidArgument for a value that neither sets a limit nor takes one away."""
    for name, (least, most) in _RANGES.items():
        value = getattr(limits, name)
        if not least <= value <= most and value != 0 and not (value == -1 and name in _UNLIMITED):
            raise InvalidArgument(f"{name} {value} is not between {least} and {most}")
    for name in ("cpuset_cpus", "cpuset_mems"):
        value = getattr(limits, name)
        if value and not _CPUS.fullmatch(value):
            raise InvalidArgument(f"{name} {shown(value)} is no list of numbers and ranges")
    memory, swap = limits.memory_limit_in_bytes, limits.memory_swap_limit_in_bytes
    if 0 < swap < memory:
        raise InvalidArgument(f"a limit of {swap} for memory with swap is below that of {memory} for memory")
    for page in limits.hugepage_limits:
        if not _PAGE_SIZE.fullmatch(page.page_size):
            raise InvalidArgument(f"{shown(page.page_size)} is no size of huge pages, like 2MB")
    for key, setting in limits.unified.items():
        if not _FILE.fullmatch(key) or key.startswith(_NOT_A_CONTROLLER):
            raise InvalidArgument(f"unified resource {shown(key)} is no file of a cgroup controller")
        clean(setting, f"unified resource {key}")
