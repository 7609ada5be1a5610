"""The CDI devices of this node. Files are reread on demand, if they have changed. Functions block."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from noderuntime.core.errors import InvalidArgument, NotFound, first_problem, invalid_argument
from noderuntime.node.host.regular import read_regular
from noderuntime.node.spec.cdi.schema import QUALIFIED, Device, Edits, File
from noderuntime.node.spec.validation import quoted

_LIMITS = {".json": 1 << 20, ".yaml": 1 << 18}
"""Maximum file size in bytes. YAML is parsed in Python: a quarter of a megabyte takes one or two seconds."""

_Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A device and its file."""

    device: Device
    file: File
    path: Path
    priority: int


@dataclass(frozen=True, slots=True)
class _Content:
    """The content of all files."""

    signature: _Signature
    devices: dict[str, _Entry]
    errors: tuple[str, ...]


class Catalog:
    """CDI devices by their qualified names. An invalid file disables only its own devices."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """Use these directories. A device in a later directory takes precedence over an earlier one."""
        self._directories = tuple(directories)
        self._content = _Content((), {}, ())

    def edits(self, names: Sequence[str]) -> list[Edits]:
        """Return the edits of the devices, in the order in which to apply them.

        InvalidArgument for an invalid name, NotFound for devices that this node does not have.
        """
        for name in names:
            if not QUALIFIED.fullmatch(name):
                raise InvalidArgument(
                    f"{quoted(name)} is not the name of a CDI device (example: vendor.example/class=name)"
                )
        content = self._current()
        missing = [name for name in names if name not in content.devices]
        if missing:
            errors = (
                f"; {len(content.errors)} errors, the first: {content.errors[0]}" if content.errors else ""
            )
            raise NotFound(f"this node has no CDI device {', '.join(missing)[:400]}{errors}")
        found: list[Edits] = []
        files: set[Path] = set()
        for name in dict.fromkeys(names):
            entry = content.devices[name]
            if entry.path not in files:
                files.add(entry.path)
                found.append(entry.file.edits)
            found.append(entry.device.edits)
        return found

    def _current(self) -> _Content:
        files = list(self._files())
        signature = tuple(_signature(path) for path, _ in files)
        if signature != self._content.signature:
            self._content = _load(files, signature)
        return self._content

    def _files(self) -> Iterator[tuple[Path, int]]:
        for priority, directory in enumerate(self._directories):
            try:
                entries = sorted(directory.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                continue
            for path in entries:
                if path.suffix in _LIMITS:
                    yield path, priority


def _signature(path: Path) -> tuple[str, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino


def _load(files: Sequence[tuple[Path, int]], signature: _Signature) -> _Content:
    devices: dict[str, _Entry] = {}
    errors: list[str] = []
    conflicts: set[str] = set()
    for path, priority in files:
        try:
            file = read(path)
        except InvalidArgument as error:
            errors.append(str(error))
            continue
        for device in file.devices:
            name = f"{file.kind}={device.name}"
            known = devices.get(name)
            if known is not None and known.priority == priority:
                conflicts.add(name)
                errors.append(f"{name} is defined in {known.path} and in {path}")
            else:
                conflicts.discard(name)
                devices[name] = _Entry(device, file, path, priority)
    for name in conflicts:
        del devices[name]
    return _Content(signature, devices, tuple(errors))


def read(path: Path) -> File:
    """Return the content of a CDI file. InvalidArgument, one line, if it is invalid."""
    try:
        return File.model_validate(_parse(path))
    except ValidationError as error:
        raise InvalidArgument(f"CDI file {path}: {first_problem(error)}") from error
    except OSError as error:
        raise invalid_argument(f"CDI file {path}", error) from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"CDI file {path}: {' '.join(str(error).split())[:200]}") from error


def _parse(path: Path) -> Any:
    content = read_regular(path, _LIMITS[path.suffix]).decode()
    if path.suffix == ".json":
        return json.loads(content)
    from noderuntime.node.spec.cdi.yaml import load  # noqa: PLC0415 - few nodes have YAML files

    return load(content)
