"""Old versions of the bundle: removed once nothing runs from them."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from noderuntime.agent.layout import Layout
from noderuntime.core import log

_log = log.get(__name__)


def collect(layout: Layout) -> list[str]:
    """Remove every version that is neither current nor used by a process; return their names."""
    removed = []
    current = layout.current.resolve().name
    for path in sorted(layout.versions.iterdir()) if layout.versions.is_dir() else []:
        if path.name != current and not path.name.startswith(".") and not users(layout, path):
            _log.info("removing an old version", digest=path.name)
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path.name)
    return removed


def users(layout: Layout, directory: Path) -> list[int]:
    """Return the PIDs whose program, libraries or mounts lie in the directory."""
    needle = f"/{directory.relative_to(layout.root)}/".encode()
    processes = (entry for entry in layout.proc.iterdir() if entry.name.isdigit())
    return [int(entry.name) for entry in processes if _uses(entry, needle)]


def _uses(process: Path, needle: bytes) -> bool:
    with contextlib.suppress(OSError):
        if needle in os.fsencode(os.readlink(process / "exe")):
            return True
        return needle in (process / "maps").read_bytes() or needle in (process / "mountinfo").read_bytes()
    return False
