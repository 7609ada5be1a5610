"""Dump the ledger as JSON. It is opened read-only and without the daemon's lock."""

from __future__ import annotations

import sqlite3
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from noderuntime.core.errors import FailedPrecondition, NotFound
from noderuntime.lifecycle.ledger.records import Container, Sandbox

_KINDS: dict[str, type] = {"sandboxes": Sandbox, "containers": Container}


def dump(directory: Path) -> dict[str, Any]:
    """Return the ledger of a state directory: its schema and the rows of each table, by their columns.

    Columns that hold CRI messages are shown as proto3 JSON without values of environment variables, which may
    be secrets. What cannot be decoded is shown in hexadecimal. A ledger of any schema can be dumped, also
    beside a running daemon. NotFound if it does not exist, FailedPrecondition if it is not a database.
    """
    path = directory / "ledger.db"
    if not path.exists():
        raise NotFound(f"the ledger {path} does not exist: check the state directory")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            names = [
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            return {"schema": schema, **{name: _rows(connection, name) for name in sorted(names)}}
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise FailedPrecondition(f"the ledger {path} cannot be read: {error}") from error


def _rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    hints = get_type_hints(_KINDS[table]) if table in _KINDS else {}
    messages = {field.name: hints[field.name] for field in fields(_KINDS[table])} if hints else {}
    quoted = table.replace('"', '""')
    rows = connection.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608 - a name from the schema, quoted
    return [{name: _plain(row[name], messages.get(name)) for name in row.keys()} for row in rows]  # noqa: SIM118


def _plain(value: Any, kind: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    if isinstance(kind, type) and issubclass(kind, Message):
        try:
            message = kind.FromString(value)
        except DecodeError:
            return value.hex()
        return _without_values(MessageToDict(message))
    return _text(value)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _without_values(message: dict[str, Any]) -> dict[str, Any]:
    for variable in message.get("envs", ()):
        variable.pop("value", None)
    return message
