"""The SQLite file of one daemon: opened once, read into memory at start, written through.

A lock file excludes a second daemon. All writes happen in one thread in the order of the calls, and are
durable against the death of the daemon when their call returns (WAL with ``synchronous=NORMAL``). A power
cut can lose those after the last :meth:`Database.sync`; the next start must treat that like any other
difference between the database and the node.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderuntime.core.blocking import FILES, Lane
from noderuntime.core.errors import FailedPrecondition, HostError, ResourceExhausted, os_errors

Statement = tuple[str, Sequence[Any]]
"""SQL and the values of its placeholders."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of a database on disk."""

    version: int
    oldest_reader: int
    """A daemon can use the database if it supports this schema. 0: every daemon can."""


def copy(source: Path, target: Path) -> Schema:
    """Copy a database durably, even while it is in use, and return its schema. Blocks.

    The target must not exist. sqlite3.Error if the source is damaged or the disk is full.
    """
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        return _schema(new)


def migrate(path: Path, noun: str, steps: Sequence[str]) -> None:
    """Migrate a database that no daemon has open to the newest schema. Blocks.

    FailedPrecondition if only a newer daemon can use it, sqlite3.Error if it is damaged.
    """
    _open(path, noun, steps, lambda _: None).close()


def schema_of(path: Path) -> Schema:
    """Return the schema of a database that no daemon has open. Blocks. sqlite3.Error if it is damaged."""
    with closing(sqlite3.connect(path)) as connection:
        return _schema(connection)


class Database:
    """An open database. ``noun`` names it in errors, ``steps`` are its migrations.

    Step N migrates from ``user_version`` N to N + 1. Steps are only appended, and most add columns with a
    default, or tables: after a rollback an older daemon can read and write such a database without them.
    Statements therefore name their columns and never replace a whole row. A step that is incompatible with
    older daemons sets ``PRAGMA application_id`` to the ``user_version`` after it.
    """

    def __init__(
        self, path: Path, noun: str, steps: Sequence[str], load: Callable[[sqlite3.Connection], None]
    ) -> None:
        """Open the file, whose directory is created if needed, and ``load`` it. Blocks: for the start only.

        FailedPrecondition if another daemon has it open, it needs a newer daemon, or it is damaged.
        """
        self._noun = noun
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(path.with_suffix(".lock"))
        self._log = path.with_name(f"{path.name}-wal")
        self._writer = Lane(path.stem, 1)
        try:
            self._connection = _open(path, noun, steps, load)
        except FailedPrecondition:
            self._release()
            raise
        except Exception as error:
            self._release()
            raise FailedPrecondition(
                f"the {noun} {path} cannot be read ({error}): move it away to start with an empty one"
            ) from error

    async def write(self, *statements: Statement) -> None:
        """Execute all statements or none. ResourceExhausted if the disk is full."""
        await self._writer.run(self._write, statements)

    async def sync(self) -> None:
        """Make all completed writes durable against a power cut. HostError if that fails."""
        with os_errors(f"flush the {self._noun}"):
            await FILES.run(_flush, self._log)

    async def read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query."""

        def rows() -> list[Any]:
            return self._connection.execute(sql, values).fetchall()

        return await self._writer.run(rows)

    async def close(self) -> None:
        """Finish pending writes and release the lock."""
        await self._writer.run(self._connection.close)
        self._release()

    def _write(self, statements: Iterable[Statement]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for sql, values in statements:
                    self._connection.execute(sql, values)
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise ResourceExhausted(f"the disk that holds the {self._noun} is full") from error
            raise HostError(f"writing the {self._noun}", 5, str(error)) from error

    def _release(self) -> None:
        self._writer.close()
        os.close(self._lock)


def _flush(path: Path) -> None:
    """Flush a file to disk. Among SQLite's files, only the WAL has no POSIX locks that a close would drop."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _lock(path: Path) -> int:
    """Acquire the lock file and return its descriptor. FailedPrecondition if another daemon holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise FailedPrecondition(f"another noderuntime already uses {path.parent}") from error
    return lock


def _open(
    path: Path, noun: str, steps: Sequence[str], load: Callable[[sqlite3.Connection], None]
) -> sqlite3.Connection:
    """Open the database in autocommit mode and migrate it to the newest schema."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        _migrate(connection, noun, steps)
        load(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, noun: str, steps: Sequence[str]) -> None:
    """Migrate the database to the newest schema. FailedPrecondition if only a newer daemon can use it."""
    found = _schema(connection)
    if found.oldest_reader > len(steps):
        raise FailedPrecondition(
            f"the {noun} has schema {found.version}, which requires support for schema {found.oldest_reader};"
            f" this daemon supports {len(steps)}: install a newer noderuntime"
        )
    for number, step in enumerate(steps[found.version :], found.version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")


def _schema(connection: sqlite3.Connection) -> Schema:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (oldest_reader,) = connection.execute("PRAGMA application_id").fetchone()
    return Schema(version, oldest_reader)
