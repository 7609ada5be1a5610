"""Checks that apply to every field of every request that is answered here.

A value that an enum does not contain comes from a newer client: it is refused, because another behaviour
than the requested one would be worse. A string must not contain NUL, where the kernel would truncate it.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from noderuntime.core.errors import InvalidArgument


def check(message: Message, path: str = "") -> None:
    """Raise InvalidArgument with the name of the first field that is invalid."""
    for field, value in message.ListFields():
        _check_field(field, value, f"{path}{field.name}")


def _check_field(field: FieldDescriptor, value: Any, path: str) -> None:
    inside = field.message_type
    if inside is not None and inside.GetOptions().map_entry:
        for name, column in (("key", value.keys()), ("value", value.values())):
            for one in column:
                _check_one(inside.fields_by_name[name], one, path)
    elif field.is_repeated:
        for one in value:
            _check_one(field, one, path)
    else:
        _check_one(field, value, path)


def _check_one(field: FieldDescriptor, value: Any, path: str) -> None:
    if isinstance(value, Message):
        check(value, f"{path}.")
    elif isinstance(value, str):
        if "\0" in value:
            raise InvalidArgument(f"{path} contains a NUL character")
    elif field.enum_type is not None and value not in field.enum_type.values_by_number:
        raise InvalidArgument(f"{path}: {value} is not a value of {field.enum_type.name}")
