"""Copies of the daemon's databases: what an upgrade needs to take the previous version back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from noderuntime.agent.layout import Layout
from noderuntime.core import database, log
from noderuntime.core import durable_files as files

_log = log.get(__name__)

_NAMES = ("ledger.db", "images/images.db")


def save(layout: Layout) -> None:
    """Copy the databases, which no daemon has open. sqlite3.Error or OSError if that is not possible."""
    for path, copy in _paths(layout):
        partial = copy.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        database.copy(path, partial)
        partial.replace(copy)
        files.sync_directory(copy.parent)


def restore(layout: Layout, *, reads_newer: bool) -> None:
    """Restore the databases that the previous version cannot use; the others keep later writes.

    ``reads_newer`` says that the previous version uses databases of a newer schema that allow it.
    """
    for path, copy in _paths(layout):
        if copy.exists() and not _is_usable(path, copy, reads_newer=reads_newer):
            _log.warning("restoring a database as it was before the upgrade", path=path)
            for extra in ("-wal", "-shm"):
                files.remove(path.with_name(path.name + extra))
            files.write(path, copy.read_bytes(), mode=0o600)


def _paths(layout: Layout) -> Iterator[tuple[Path, Path]]:
    """Return each existing database with the path of its copy."""
    for name in _NAMES:
        path = layout.state / name
        if path.exists():
            yield path, layout.upgrade.parent / path.name


def _is_usable(path: Path, copy: Path, *, reads_newer: bool) -> bool:
    try:
        before, now = database.schema_of(copy), database.schema_of(path)
    except sqlite3.Error:
        return False
    return now == before or (reads_newer and now.oldest_reader <= before.version)
