"""The ledger: an SQLite database that says what was made, or is about to be.

Opened once, by one daemon: a lock file keeps a second one out. All writes happen in one
thread, in the order in which they were asked for, and are durable against the death of
the daemon when their call returns (WAL with ``synchronous=NORMAL``: a power cut may lose
the last ones, which recovery takes as it takes any other difference from the world).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from noderuntime.cri.v1 import api_pb2
from noderuntime.errors import FailedPrecondition, HostError, ResourceExhausted
from noderuntime.store.codec import Codec
from noderuntime.store.migrations import migrate
from noderuntime.store.records import Container, Sandbox
from noderuntime.store.table import Table


def sandbox_name(metadata: api_pb2.PodSandboxMetadata) -> Hashable:
    """Return what no two sandboxes share."""
    return (metadata.name, metadata.namespace, metadata.uid, metadata.attempt)


def container_name(sandbox_id: str, metadata: api_pb2.ContainerMetadata) -> Hashable:
    """Return what no two containers share."""
    return (sandbox_id, metadata.name, metadata.attempt)


class Ledger:
    """All sandboxes and containers that run here."""

    def __init__(self, directory: Path) -> None:
        """Open the ledger of a state directory, which is made if missing. Blocks; used at start only.

        Raises FailedPrecondition when another daemon has it, a newer one wrote it, or it is damaged.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(directory / "ledger.lock")
        path = directory / "ledger.db"
        self._writer = ThreadPoolExecutor(1, "ledger")
        self.sandboxes: Table[Sandbox] = Table(
            "sandbox",
            "sandboxes",
            Codec(Sandbox),
            self._execute,
            name=lambda s: sandbox_name(s.config.metadata),
            owner=lambda s: s.id,
        )
        self.containers: Table[Container] = Table(
            "container",
            "containers",
            Codec(Container),
            self._execute,
            name=lambda c: container_name(c.sandbox_id, c.config.metadata),
            owner=lambda c: c.sandbox_id,
        )
        try:
            self._connection = _connect(path)
            self.sandboxes.load(self._connection)
            self.containers.load(self._connection)
        except FailedPrecondition:
            self._release()
            raise
        except Exception as error:
            self._release()
            raise FailedPrecondition(
                f"the ledger {path} cannot be read ({error}): move it away to start with an empty one"
            ) from error

    async def meta(self, key: str) -> str | None:
        """Return a value that :meth:`set_meta` kept."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._read_meta, key)

    async def set_meta(self, key: str, value: str) -> None:
        """Keep a value that belongs to the daemon as a whole."""
        await self._execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", [key, value])

    async def close(self) -> None:
        """Finish the writes under way and let go of the lock."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._connection.close)
        self._release()

    async def _execute(self, sql: str, values: Sequence[Any]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, self._write, sql, values)

    def _write(self, sql: str, values: Sequence[Any]) -> None:
        try:
            self._connection.execute(sql, values)
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise ResourceExhausted("the disk that holds the ledger is full") from error
            raise HostError("writing the ledger", 5, str(error)) from error

    def _read_meta(self, key: str) -> str | None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        return None if row is None else str(row[0])

    def _release(self) -> None:
        self._writer.shutdown()
        os.close(self._lock)


def _lock(path: Path) -> int:
    """Take the lock file; FailedPrecondition if another daemon has it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise FailedPrecondition(f"another noderuntime already uses {path.parent}") from error
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database with the schema of today, in autocommit mode."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection
