"""The ledger: a database of sandboxes and containers. Objects are recorded before they are created."""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from noderuntime.core.database import Database
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.codec import Codec
from noderuntime.lifecycle.ledger.migrations import STEPS
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.ledger.table import Table


def sandbox_name(metadata: api_pb2.PodSandboxMetadata) -> Hashable:
    """Return a sandbox's name, which is unique."""
    return (metadata.name, metadata.namespace, metadata.uid, metadata.attempt)


def container_name(sandbox_id: str, metadata: api_pb2.ContainerMetadata) -> Hashable:
    """Return a container's name, which is unique."""
    return (sandbox_id, metadata.name, metadata.attempt)


class Ledger:
    """All sandboxes and containers that run here."""

    def __init__(self, directory: Path) -> None:
        """Open the ledger of a state directory, which is created if missing. Blocks; used at start only.

        FailedPrecondition if another daemon holds the ledger, if its schema is newer, or if it is damaged.
        """
        self.sandboxes: Table[Sandbox] = Table(
            "sandbox",
            "sandboxes",
            Codec(Sandbox),
            self._write,
            name=lambda s: sandbox_name(s.config.metadata),
            owner=lambda s: s.id,
        )
        self.containers: Table[Container] = Table(
            "container",
            "containers",
            Codec(Container),
            self._write,
            name=lambda c: container_name(c.sandbox_id, c.config.metadata),
            owner=lambda c: c.sandbox_id,
        )
        self._database = Database(directory / "ledger.db", "ledger", STEPS, self._load)

    async def meta(self, key: str) -> str | None:
        """Return a value that :meth:`set_meta` stored; None if the key is missing."""
        rows = await self._database.read("SELECT value FROM meta WHERE key = ?", [key])
        return str(rows[0][0]) if rows else None

    async def set_meta(self, key: str, value: str) -> None:
        """Store a value that concerns the whole daemon."""
        put = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = ?"
        await self._write(put, [key, value, value])

    async def sync(self) -> None:
        """Make all changes so far durable against a power cut."""
        await self._database.sync()

    async def close(self) -> None:
        """Finish the writes in progress and release the lock."""
        await self._database.close()

    def _load(self, connection: sqlite3.Connection) -> None:
        self.sandboxes.load(connection)
        self.containers.load(connection)

    async def _write(self, sql: str, values: Sequence[Any]) -> None:
        await self._database.write((sql, values))
