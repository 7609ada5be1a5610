"""The node's network configuration (CNI spec 1.1, section 1).

A ``.conflist`` file configures a chain of plugins, a ``.conf`` or ``.json`` file a single one. As in other
runtimes, the first valid file by name is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderuntime.core.errors import InvalidArgument, Unavailable, invalid_argument

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Versions of the specification whose results :mod:`noderuntime.node.network.plugin` reads, oldest first."""

_SUFFIXES = (".conf", ".conflist", ".json")
_SIZE_LIMIT = 1 << 20

Plugin = dict[str, Any]
_Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class NetworkList:
    """A network; its plugins in the order of ADD."""

    name: str
    version: str
    plugins: tuple[Plugin, ...]
    disable_gc: bool = False
    """Whether GC must not be called, because something else attaches to the network as well."""

    def at_least(self, version: str) -> bool:
        """Return whether the network uses this version of the specification or a newer one."""
        return _number(self.version) >= _number(version)

    def to_json(self) -> dict[str, Any]:
        """Return what :func:`parse` reads back."""
        return {
            "name": self.name,
            "cniVersion": self.version,
            "plugins": list(self.plugins),
            "disableGC": self.disable_gc,
        }


class Configuration:
    """The network that a directory configures, read again when one of its files has changed.

    Its method blocks, and can be called in several threads at once.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: tuple[_Signature, NetworkList | InvalidArgument] | None = None

    def current(self) -> NetworkList:
        """Return the network; Unavailable says what is wrong with the configuration."""
        signature, known = _signature(self._directory), self._known
        if known is None or known[0] != signature:
            known = self._known = signature, self._load()
        if isinstance(known[1], InvalidArgument):
            raise Unavailable(f"the pod network is not configured: {known[1]}")
        return known[1]

    def _load(self) -> NetworkList | InvalidArgument:
        try:
            return load(self._directory)
        except InvalidArgument as error:
            return error


def files(conf_dir: Path) -> list[Path]:
    """Return the configuration files by name; InvalidArgument if the directory cannot be read."""
    try:
        return sorted(path for path in conf_dir.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    except OSError as error:
        raise invalid_argument(f"CNI directory {conf_dir}", error) from error


def load(conf_dir: Path) -> NetworkList:
    """Return the network of the first valid file.

    If no file is valid, InvalidArgument says what is wrong with the first one.
    """
    fault: InvalidArgument | None = None
    for path in files(conf_dir):
        try:
            return _load_file(path)
        except InvalidArgument as error:
            fault = fault or error
    raise fault or InvalidArgument(f"no CNI configuration in {conf_dir}")


def parse(content: Any) -> NetworkList:
    """Return the network of a list in JSON; InvalidArgument if it is invalid."""
    if not isinstance(content, dict):
        raise InvalidArgument("not a JSON object")
    name, plugins = content.get("name"), content.get("plugins")
    if not isinstance(name, str) or not name:
        raise InvalidArgument("no name")
    if not isinstance(plugins, list) or not plugins:
        raise InvalidArgument("no plugins")
    for plugin in plugins:
        _check_plugin(plugin)
    disable_gc = content.get("disableGC", False) not in (False, "false")
    return NetworkList(name, _version(content), tuple(plugins), disable_gc)


def _load_file(path: Path) -> NetworkList:
    try:
        content = _read_json(path)
        if path.suffix != ".conflist":
            content = _as_list(content)
        elif _has_folder(content):
            content = content | {"plugins": [*(content.get("plugins") or []), *_folder(path, content)]}
        return parse(content)
    except InvalidArgument as error:
        raise InvalidArgument(f"CNI configuration {path}: {error}") from error


def _read_json(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            raw = file.read(_SIZE_LIMIT + 1)
        if len(raw) > _SIZE_LIMIT:
            raise InvalidArgument("larger than 1 MiB")
        return json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(" ".join(str(error).split())) from error


def _as_list(content: Any) -> Any:
    """Return a list of one plugin, with the name and version of its configuration."""
    _check_plugin(content)
    return {"plugins": [content], **{key: content[key] for key in ("name", "cniVersion") if key in content}}


def _has_folder(content: Any) -> bool:
    """Return whether a directory beside the list can contain plugins (loadOnlyInlinedPlugins)."""
    if not isinstance(content, dict) or "/" in str(content.get("name")):
        return False
    return content.get("loadOnlyInlinedPlugins") not in (True, "true") and isinstance(
        content.get("plugins", []), list
    )


def _folder(path: Path, content: dict[str, Any]) -> list[Any]:
    folder = path.parent / str(content.get("name"))
    return [_read_json(part) for part in sorted(folder.glob("*.conf"))] if folder.is_dir() else []


def _check_plugin(plugin: Any) -> None:
    kind = plugin.get("type") if isinstance(plugin, dict) else None
    if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
        raise InvalidArgument("a plugin has no type, or one that is not a file name")


def _number(version: str) -> tuple[int, ...]:
    """Return a version in a form that compares as versions do: 0.10.0 is newer than 0.4.0."""
    return tuple(map(int, version.split(".")))


def _version(content: dict[str, Any]) -> str:
    """Return the newest version that the list offers and :data:`VERSIONS` contains."""
    offered = content.get("cniVersions")
    candidates = [*(offered if isinstance(offered, list) else []), content.get("cniVersion", "0.1.0")]
    known = [version for version in VERSIONS if version in candidates]
    if not known:
        raise InvalidArgument(f"cniVersion {candidates[-1]!r} is not among {', '.join(VERSIONS)}")
    return known[-1]


def _signature(conf_dir: Path) -> _Signature:
    """Identify the state of the directory by what stat(2) returns for its files."""
    try:
        paths = [*files(conf_dir), *sorted(conf_dir.glob("*/*.conf"))]
    except InvalidArgument:
        return ()
    entries = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        entries.append((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(entries)
