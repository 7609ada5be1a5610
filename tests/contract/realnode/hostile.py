"""Generated hostile requests: valid ones with a few changed fields, and random bytes.

What would reach outside of a test (paths of the node, host ports, cgroups) is chosen from a few
values; everything else is whatever hypothesis comes up with, the usual suspects more often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

Draw = Any

_TEXTS = (
    "",
    "\0",
    "a\0b",
    "../../../etc/passwd",
    "/",
    "..",
    "-rf",
    "--help",
    "a\nb",
    "x" * 254,
    "x" * 5000,
    "é" * 200,
    "☃",
    "%s%n",
    "$(id)",
    "f" * 64,
    "F" * 64,
)
_NUMBERS = (-(2**63), -(2**31), -1, 0, 1, 65536, 2**31 - 1, 2**63 - 1)
_ENUMS = (-1, 0, 1, 2, 3, 99, 2**31 - 1)
_DEEP = 6


class Requests:
    """Generates hostile requests. ``known`` are existing IDs, ``room`` is a directory."""

    def __init__(self, room: Path, cgroup: str, known: Sequence[str]) -> None:
        self._texts = st.sampled_from([*_TEXTS, *known, *(one[:20] for one in known)]) | st.text(max_size=40)
        bad_paths = ["", "relative", "../up", "\0", f"{room}/{'y' * 300}", f"{room}/x/../../.."]
        self._special: Mapping[str, st.SearchStrategy[Any]] = {
            "host_path": st.sampled_from([*bad_paths, f"{room}/made", "/dev/null", "/proc/self/mem/x"]),
            "log_directory": st.sampled_from([*bad_paths, f"{room}/logs"]),
            "log_path": st.sampled_from(["", "a.log", "../b.log", "/c.log", "d/e.log", "f/", "g" * 300]),
            "location": st.sampled_from([*bad_paths, f"{room}/c.tar", "/proc/c.tar"]),
            "localhost_ref": st.sampled_from([*bad_paths, "/dev/zero", f"{room}/none.json"]),
            "cgroup_parent": st.sampled_from(
                ["", "/..", "x", "\0", f"{cgroup}/a", f"/{'z' * 2000}", "/a/../b"]
            ),
            "host_port": st.sampled_from([-1, 0, 65536, 2**31 - 1]),
            "length": st.sampled_from([0, 1, 65536, 2**32 - 1]),
        }

    def change(self, draw: Draw, message: Message, depth: int = 0) -> None:
        """Change one field of a message or of a nested message."""
        fields = list(message.DESCRIPTOR.fields)
        if fields:
            self._change_field(draw, message, draw(st.sampled_from(fields)), depth)

    def _change_field(self, draw: Draw, message: Message, field: FieldDescriptor, depth: int) -> None:
        inside = field.message_type
        value = getattr(message, field.name)
        if inside is not None and inside.GetOptions().map_entry:
            self._put(draw, value, inside, depth)
        elif inside is not None and depth < _DEEP:
            if not field.is_repeated and field.name not in self._special:
                value.SetInParent()
            self.change(draw, value.add() if field.is_repeated else value, depth + 1)
        elif inside is None and field.is_repeated:
            value.append(self._scalar(draw, field))
        elif inside is None:
            setattr(message, field.name, self._scalar(draw, field))

    def _put(self, draw: Draw, mapping: Any, entry: Descriptor, depth: int) -> None:
        key = draw(self._texts)
        if entry.fields_by_name["value"].message_type is None:
            mapping[key] = self._scalar(draw, entry.fields_by_name["value"])
        else:
            self.change(draw, mapping[key], depth + 1)

    def _scalar(self, draw: Draw, field: FieldDescriptor) -> Any:
        special = self._special.get(field.name)
        if special is not None and field.type != FieldDescriptor.TYPE_MESSAGE:
            return draw(special)
        kinds: Mapping[int, st.SearchStrategy[Any]] = {
            FieldDescriptor.TYPE_STRING: self._texts,
            FieldDescriptor.TYPE_BYTES: st.binary(max_size=40),
            FieldDescriptor.TYPE_BOOL: st.booleans(),
            FieldDescriptor.TYPE_ENUM: st.sampled_from(_ENUMS),
            FieldDescriptor.TYPE_INT32: _whole(-(2**31), 2**31 - 1),
            FieldDescriptor.TYPE_UINT32: _whole(0, 2**32 - 1),
            FieldDescriptor.TYPE_INT64: _whole(-(2**63), 2**63 - 1),
            FieldDescriptor.TYPE_UINT64: _whole(0, 2**64 - 1),
            FieldDescriptor.TYPE_DOUBLE: st.floats(),
        }
        return draw(kinds[field.type])


def _whole(least: int, most: int) -> st.SearchStrategy[int]:
    suspects = [one for one in _NUMBERS if least <= one <= most]
    return st.sampled_from(suspects) | st.integers(least, most)
