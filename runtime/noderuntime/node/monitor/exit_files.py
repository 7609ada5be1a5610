"""Who ended, and how: conmon leaves a file per container, named by its ID, holding the exit code.

The files stay until the container is forgotten, so an end that happened while this daemon
was away is found by reading the directory; what comes later is an inotify event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from noderuntime.core.ids import is_ours
from noderuntime.node.host.inotify import CLOSE_WRITE, DELETE, MOVED_TO, DirectoryWatch
from noderuntime.node.monitor.base import Exit

_LONGEST = 16


def read_exit(directory: Path, container_id: str) -> Exit | None:
    """Read one exit file; None while there is none (or a torn one: conmon renames it into place)."""
    try:
        with (directory / container_id).open("rb") as file:
            code = int(file.read(_LONGEST))
            return Exit(container_id, code, (directory / container_id).stat().st_mtime_ns)
    except (FileNotFoundError, ValueError):
        return None


class ExitWatcher:
    """Delivers the end of every container once: those there are, then those to come."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._told: set[str] = set()

    async def exits(self) -> AsyncIterator[Exit]:
        """Yield exits, without end; cancel the task that iterates to stop."""
        with DirectoryWatch(self._directory, MOVED_TO | CLOSE_WRITE | DELETE) as watch:
            for ended in self._all():
                yield ended
            while True:
                changes = await watch.changes()
                for ended in self._all() if changes.overflow else self._of(changes.names):
                    yield ended

    def _all(self) -> Iterator[Exit]:
        return self._of(sorted(entry.name for entry in self._directory.iterdir()))

    def _of(self, names: Iterable[str]) -> Iterator[Exit]:
        for name in names:
            if not is_ours(name):
                continue
            with suppress(OSError):
                ended = read_exit(self._directory, name)
                if ended is None:  # forgotten, and so it can be here
                    self._told.discard(name)
                elif name not in self._told:
                    self._told.add(name)
                    yield ended
