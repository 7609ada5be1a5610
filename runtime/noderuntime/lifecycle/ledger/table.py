"""All records of one kind, in memory and on disk.

Reads are served from memory. A change is written to the database before the call returns.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, insort
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import Any, Generic

from noderuntime.core import log
from noderuntime.core.errors import AlreadyExists, InvalidArgument, NotFound
from noderuntime.core.ids import check_id
from noderuntime.lifecycle.ledger.codec import Codec, R

_log = log.get(__name__)

Execute = Callable[[str, Sequence[Any]], Awaitable[None]]


class Table(Generic[R]):
    """Records by ID, by unique prefix of an ID, by name, and by sandbox."""

    def __init__(
        self,
        noun: str,
        table: str,
        codec: Codec[R],
        execute: Execute,
        *,
        name: Callable[[R], Hashable],
        owner: Callable[[R], str],
    ) -> None:
        self._noun = noun
        self._codec: Codec[R] = codec
        self._execute = execute
        self._name: Callable[[R], Hashable] = name
        self._owner: Callable[[R], str] = owner
        self._observer: Callable[[R], None] = lambda _: None
        self._records: dict[str, R] = {}
        self._sorted: list[str] = []
        self._names: dict[Hashable, str] = {}
        self._owned: dict[str, dict[str, R]] = {}
        columns, marks = ", ".join(codec.columns), ", ".join("?" for _ in codec.columns)
        changes = ", ".join(f"{column} = ?" for column in codec.columns)
        # The table and its columns are constants of this program, never input.
        self._select = f"SELECT {columns} FROM {table} ORDER BY created_at"  # noqa: S608
        self._insert = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608
        self._update = f"UPDATE {table} SET {changes} WHERE id = ?"  # noqa: S608
        self._delete = f"DELETE FROM {table} WHERE id = ?"  # noqa: S608

    def __iter__(self) -> Iterator[R]:
        """Iterate over all records, oldest first; the table can change meanwhile."""
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def load(self, connection: sqlite3.Connection) -> None:
        """Read all records from the database. Blocks.

        A row that cannot be decoded stays in the database, is logged, and is ignored by everything else.
        """
        for row in connection.execute(self._select):
            try:
                record = self._codec.record(row)
            except Exception as error:  # the type depends on the damage
                _log.error("unreadable ledger row ignored", kind=self._noun, id=row[0], error=repr(error))
            else:
                self._remember(record)

    async def add(self, record: R) -> None:
        """Add a new record; AlreadyExists if its name is taken."""
        taken = self._names.get(self._name(record))
        if taken is not None:
            raise AlreadyExists(f"{self._noun} {taken} has the same name and attempt")
        self._remember(record)
        try:
            await self._execute(self._insert, self._codec.row(record))
        except BaseException:
            self._forget(record)
            raise

    async def save(self, record: R) -> None:
        """Write a changed record. Does nothing if it was dropped meanwhile."""
        if record.id not in self._records:
            return
        try:
            await self._execute(self._update, [*self._codec.row(record), record.id])
        finally:
            self._observer(record)

    def observe(self, observer: Callable[[R], None]) -> None:
        """Pass all records to the observer, now and after each save."""
        self._observer = observer
        for record in self:
            observer(record)

    async def drop(self, record: R) -> None:
        """Remove a record. No error if it is missing."""
        await self._execute(self._delete, [record.id])
        self._forget(record)

    def find(self, identifier: str) -> R | None:
        """Return the record with this ID or unique prefix of an ID; None if no record matches.

        InvalidArgument if the prefix is ambiguous.
        """
        record = self._records.get(identifier)
        if record is not None or not identifier:
            return record
        at = bisect_left(self._sorted, identifier)
        matches = [known for known in self._sorted[at : at + 2] if known.startswith(identifier)]
        if len(matches) > 1:
            raise InvalidArgument(f"{self._noun} ID prefix {identifier} is ambiguous: use a longer one")
        return self._records[matches[0]] if matches else None

    def get(self, identifier: str) -> R:
        """Return the record as :meth:`find` does; NotFound if it is missing or not visible yet."""
        record = self.find(check_id(identifier, f"{self._noun} ID"))
        if record is None or not record.visible:
            raise NotFound(f"no {self._noun} {identifier[:64]}")
        return record

    def named(self, name: Hashable) -> R | None:
        """Return the record with this name, visible or not; None if it is missing."""
        return self._records.get(self._names.get(name, ""))

    def of(self, sandbox_id: str) -> list[R]:
        """Return the records of one sandbox, oldest first."""
        return list(self._owned.get(sandbox_id, {}).values())

    def _remember(self, record: R) -> None:
        self._records[record.id] = record
        insort(self._sorted, record.id)
        self._names[self._name(record)] = record.id
        self._owned.setdefault(self._owner(record), {})[record.id] = record

    def _forget(self, record: R) -> None:
        if self._records.pop(record.id, None) is None:
            return
        del self._sorted[bisect_left(self._sorted, record.id)]
        self._names.pop(self._name(record), None)
        owned = self._owned[self._owner(record)]
        del owned[record.id]
        if not owned:
            del self._owned[self._owner(record)]
