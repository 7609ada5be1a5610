"""Convert records to rows and back: each field of a record is stored in the column of the same name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar, get_type_hints

from google.protobuf.message import Message

from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.node.host.base import ProcessRef

R = TypeVar("R", Sandbox, Container)

_Convert = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _process_to_text(process: ProcessRef | None) -> str | None:
    return None if process is None else f"{process.pid} {process.start_time}"


def _process_from_text(text: str | None) -> ProcessRef | None:
    if text is None:
        return None
    pid, start_time = text.split()
    return ProcessRef(int(pid), int(start_time))


def _converters(kind: Any) -> tuple[_Convert, _Convert]:
    """Return the functions that convert a field's values to a column's, and back."""
    if kind == ProcessRef | None:
        return _process_to_text, _process_from_text
    if kind == tuple[str, ...]:
        return json.dumps, lambda text: tuple(json.loads(text))
    if kind is bool:
        return int, bool
    if isinstance(kind, type) and issubclass(kind, Message):
        return (lambda message: message.SerializeToString()), kind.FromString
    return _same, _same


class Codec(Generic[R]):
    """Converts records of one kind to rows and back."""

    def __init__(self, record: type[R]) -> None:
        hints = get_type_hints(record)
        self.columns = tuple(f.name for f in fields(record))
        self._record: Callable[..., R] = record
        self._converters = {name: _converters(hints[name]) for name in self.columns}

    def row(self, record: R) -> list[Any]:
        """Return the record's values in the order of :attr:`columns`."""
        return [self._converters[name][0](getattr(record, name)) for name in self.columns]

    def record(self, row: Sequence[Any]) -> R:
        """Return the record of a row. An invalid value raises an error of any type."""
        pairs = zip(self.columns, row, strict=True)
        return self._record(**{name: self._converters[name][1](value) for name, value in pairs})
