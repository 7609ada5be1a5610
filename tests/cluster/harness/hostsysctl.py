"""Kernel settings of the machine that a kubelet changes: saved and restored."""

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
    """Save the settings, unless they are saved already."""
    if not file.exists():
        values = {name: (Path("/proc/sys") / name).read_text().strip() for name in _NAMES}
        file.write_text(json.dumps(values))


def restore(file: Path) -> None:
    """Restore the saved settings."""
    if not file.exists():
        return
    for name, value in json.loads(file.read_text()).items():
        target = Path("/proc/sys") / name
        if target.read_text().strip() != value:
            target.write_text(value)
