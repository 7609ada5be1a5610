"""Kernel settings that a kubelet changes although they are the machine's: kept and put back."""

from __future__ import annotations

import json
from pathlib import Path

_NAMES = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def save(file: Path) -> None:
    """Note the settings; does nothing when they were noted before."""
    if not file.exists():
        values = {name: (Path("/proc/sys") / name).read_text().strip() for name in _NAMES}
        file.write_text(json.dumps(values))


def restore(file: Path) -> None:
    """Put back the settings that were noted."""
    if not file.exists():
        return
    for name, value in json.loads(file.read_text()).items():
        target = Path("/proc/sys") / name
        if target.read_text().strip() != value:
            target.write_text(value)
