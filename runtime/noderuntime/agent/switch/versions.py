"""Garbage collection of old versions of the bundle."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from noderuntime.agent.layout import Layout
from noderuntime.agent.switch import release
from noderuntime.core import log

_log = log.get(__name__)


def collect_garbage(layout: Layout) -> list[str]:
    """Remove the versions that no release needs and no process uses; return their names."""
    removed = []
    needed = _needed(layout)
    for path in sorted(layout.versions.iterdir()) if layout.versions.is_dir() else []:
        if path.name not in needed and not path.name.startswith(".") and not processes_using(layout, path):
            _log.info("removing an old version of the bundle", digest=path.name)
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path.name)
    return removed


def _needed(layout: Layout) -> set[str]:
    """Return the versions that run the units, that the record names, and that is staged."""
    known, staged = release.load(layout), release.staged(layout)
    links = {link.resolve().name for link in (layout.current, layout.proven, layout.previous)}
    releases = (known.serving, *known.previous, staged)
    return links | {kept.digest for kept in releases if kept}


def processes_using(layout: Layout, directory: Path) -> list[int]:
    """Return the PIDs of processes whose program, mapped files or mounts are in the directory."""
    needle = f"/{directory.relative_to(layout.root)}/".encode()
    processes = (entry for entry in layout.proc.iterdir() if entry.name.isdigit())
    return [int(entry.name) for entry in processes if _uses(entry, needle)]


def _uses(process: Path, needle: bytes) -> bool:
    with contextlib.suppress(OSError):
        if needle in os.fsencode(os.readlink(process / "exe")):
            return True
        return needle in (process / "maps").read_bytes() or needle in (process / "mountinfo").read_bytes()
    return False
