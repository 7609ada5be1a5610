"""Validation of resource limits, which runs before anything is created. Pure functions."""

from __future__ import annotations

import re

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.validation import check_text, quoted

_RANGES = {
    "cpu_period": (1_000, 1_000_000),
    "cpu_quota": (1_000, (1 << 44) - 1),
    "cpu_shares": (2, 262_144),
    "memory_limit_in_bytes": (1, (1 << 63) - 1),
    "memory_swap_limit_in_bytes": (1, (1 << 63) - 1),
}
"""The kernel's valid ranges. 0 leaves a limit unchanged."""
_UNLIMITED = ("cpu_quota", "memory_limit_in_bytes", "memory_swap_limit_in_bytes")
"""Limits that -1 removes."""
_CPUS = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?){0,1023}")
_PAGE_SIZE = re.compile(r"[1-9]\d{0,6}[KMGT]?B")
_FILE = re.compile(r"[a-z0-9]{1,32}(\.[A-Za-z0-9_]{1,64}){1,4}")
_NOT_A_CONTROLLER = "cgroup."
"""Prefix of files of the cgroup itself (``cgroup.procs``), which move and kill processes."""


def check_limits(limits: api_pb2.LinuxContainerResources) -> None:
    """Raise InvalidArgument for a value that neither sets nor removes a limit."""
    for name, (least, most) in _RANGES.items():
        value = getattr(limits, name)
        if not least <= value <= most and value != 0 and not (value == -1 and name in _UNLIMITED):
            raise InvalidArgument(f"{name} {value} is not between {least} and {most}")
    for name in ("cpuset_cpus", "cpuset_mems"):
        value = getattr(limits, name)
        if value and not _CPUS.fullmatch(value):
            raise InvalidArgument(f"{name} {quoted(value)} is invalid (example: 0-3,8)")
    memory, swap = limits.memory_limit_in_bytes, limits.memory_swap_limit_in_bytes
    if 0 < swap < memory:
        raise InvalidArgument(
            f"memory_swap_limit_in_bytes {swap} is less than memory_limit_in_bytes {memory}"
        )
    for page in limits.hugepage_limits:
        if not _PAGE_SIZE.fullmatch(page.page_size):
            raise InvalidArgument(f"huge page size {quoted(page.page_size)} is invalid (example: 2MB)")
    for key, setting in limits.unified.items():
        if not _FILE.fullmatch(key) or key.startswith(_NOT_A_CONTROLLER):
            raise InvalidArgument(f"unified resource {quoted(key)} is not a file of a cgroup controller")
        check_text(setting, f"unified resource {key}")
