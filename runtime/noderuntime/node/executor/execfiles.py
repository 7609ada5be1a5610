"""The two small files of an exec: what the runtime is to run, and the PID that it writes down."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class ExecFiles:
    """A directory for them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def new(self, suffix: str) -> Path:
        """Return the path of a file that nobody else will use."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._directory / f"{secrets.token_hex(8)}{suffix}"

    @contextmanager
    def of(self, process: Mapping[str, Any]) -> Iterator[tuple[Path, Path]]:
        """Write the spec of a process; yields its path and that of the PID file, and removes both."""
        spec = self.new(".json")
        pidfile = spec.with_suffix(".pid")
        try:
            with open(os.open(spec, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
                json.dump(process, file)
            yield spec, pidfile
        finally:
            spec.unlink(missing_ok=True)
            pidfile.unlink(missing_ok=True)


def read_pid(file: Path) -> int | None:
    """Read a PID file; None while the runtime has not written it."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
