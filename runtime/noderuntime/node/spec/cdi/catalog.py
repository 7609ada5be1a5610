"""The CDI devices of this node: read from its files when they are asked for and have changed. Blocks."""

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
from noderuntime.node.spec.words import shown

_LIMITS = {".json": 1 << 20, ".yaml": 1 << 18}
"""Bytes. YAML is parsed in Python, and a quarter of a megabyte takes a second or two."""

_Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A device and where it comes from."""

    device: Device
    file: File
    path: Path
    priority: int


@dataclass(frozen=True, slots=True)
class _Content:
    """What the files said."""

    signature: _Signature
    devices: dict[str, _Entry]
    faults: tuple[str, ...]


class Catalog:
    """Devices by their full names. A file that cannot be used takes only its own devices away."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """Read these directories; what a later one describes comes before the same in an earlier one."""
        self._directories = tuple(directories)
        self._content = _Content((), {}, ())

    def edits(self, names: Sequence[str]) -> list[Edits]:
        """Return what the devices change, in the order in which it is to be done.

        InvalidArgument for what is no name of a device, NotFound for devices that this node does not have.
        """
        for name in names:
            if not QUALIFIED.fullmatch(name):
                raise InvalidArgument(
                    f"{shown(name)} is no name of a CDI device, like vendor.example/class=name"
                )
        content = self._current()
        missing = [name for name in names if name not in content.devices]
        if missing:
            faults = f"; {len(content.faults)} faults, first: {content.faults[0]}" if content.faults else ""
            raise NotFound(f"this node has no CDI device {', '.join(missing)[:400]}{faults}")
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
    faults: list[str] = []
    twice: set[str] = set()
    for path, priority in files:
        try:
            file = read(path)
        except InvalidArgument as error:
            faults.append(str(error))
            continue
        for device in file.devices:
            name = f"{file.kind}={device.name}"
            known = devices.get(name)
            if known is not None and known.priority == priority:
                twice.add(name)
                faults.append(f"{name} is described in {known.path} and in {path}")
            else:
                twice.discard(name)
                devices[name] = _Entry(device, file, path, priority)
    for name in twice:
        del devices[name]
    return _Content(signature, devices, tuple(faults))


def read(path: Path) -> File:
    """Read one file. InvalidArgument, in one line, for one that cannot be used."""
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
    from noderuntime.node.spec.cdi.yaml import load  # noqa: PLC0415 - few nodes have such files

    return load(content)
