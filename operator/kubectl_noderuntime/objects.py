"""Read JSON objects of the API: absent parts are empty, whatever the version of the operator. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]


def part(body: Json | None, *path: str) -> Json:
    """Return the object at a path, or an empty one."""
    found: Any = body or {}
    for key in path:
        found = found.get(key) or {}
    return found if isinstance(found, Mapping) else {}


def items(body: Json | None, *path: str) -> Iterator[Json]:
    """Yield the objects of the list at a path."""
    *parents, last = path
    for item in part(body, *parents).get(last) or ():
        if isinstance(item, Mapping):
            yield item


def name_of(body: Json) -> str:
    """Return an object's name."""
    return str(part(body, "metadata").get("name", ""))


def labels_of(body: Json | None) -> Json:
    """Return an object's labels."""
    return part(body, "metadata", "labels")


def is_deleted(body: Json) -> bool:
    """Return whether an object is being deleted."""
    return "deletionTimestamp" in part(body, "metadata")


def condition(body: Json | None, kind: str) -> Json:
    """Return a condition of an object's status, or an empty object."""
    return by_name(items(body, "status", "conditions"), kind, key="type")


def by_name(found: Iterable[Json], name: str, key: str = "name") -> Json:
    """Return the first object with this name, or an empty one."""
    return next((item for item in found if item.get(key) == name), {})


def bare(name: str) -> str:
    """Return a name without its kind: users may write pod/web-0."""
    return name.rpartition("/")[2]
