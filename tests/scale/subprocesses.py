"""Processes that end with this one, and their CPU time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def ending_with_parent(argv: Sequence[str]) -> list[str]:
    """Return a command that is killed when the process that started it ends."""
    return ["setpriv", "--pdeathsig", "KILL", *argv]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, without its children's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK
