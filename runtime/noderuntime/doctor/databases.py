"""Check of the daemon's databases: whether this version can use them. Copies are migrated."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from noderuntime.core.database import copy, migrate
from noderuntime.core.errors import NoderuntimeError
from noderuntime.doctor.finding import Finding, fail, ok
from noderuntime.images.store import catalog
from noderuntime.lifecycle.ledger import migrations


def databases(state: Path) -> list[Finding]:
    """Check the ledger and the image catalog of a state directory; one that does not exist is fine.

    The copies are made in a directory beside them, which is removed.
    """
    scratch = state / "check"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        return [
            _migrated("ledger", state / "ledger.db", migrations.STEPS, scratch),
            _migrated("image catalog", state / "images/images.db", catalog.STEPS, scratch),
        ]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _migrated(name: str, path: Path, steps: Sequence[str], scratch: Path) -> Finding:
    if not path.exists():
        return ok(name, f"{path} does not exist yet")
    try:
        scratch.mkdir(mode=0o700, exist_ok=True)
        schema = copy(path, scratch / path.name)
        migrate(scratch / path.name, name, steps)
    except (NoderuntimeError, OSError, sqlite3.Error) as error:
        return fail(name, f"{path} cannot be used: {error}", "keep the version of noderuntime that wrote it")
    return ok(name, f"{path} has schema {schema.version}")
