"""Finds the servers of a registry in containerd's ``certs.d`` directories, which are read for every pull.

certs.d/registry.example_5000_/hosts.toml    the servers of registry.example:5000
certs.d/registry.example:5000/hosts.toml     the same
certs.d/registry.example/*.crt, *.cert, *.key    Docker's layout; used without a hosts.toml
certs.d/_default/hosts.toml                  for every registry without a directory
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence
from pathlib import Path

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument, invalid_argument
from noderuntime.images.registry import hosts_toml
from noderuntime.images.registry.endpoints import RegistryHost, Tls, default_host

_FILE_LIMIT = 1 << 20


class Hosts:
    """The directories of administrators' ``hosts.toml`` files. The first with the registry is used."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.use(roots)

    def use(self, roots: Sequence[Path]) -> None:
        """Use these directories from now on."""
        self._roots = tuple(roots)

    async def lookup(self, registry: str) -> tuple[RegistryHost, ...]:
        """Return the servers to try, in order. InvalidArgument, naming the file, if a setting is invalid."""
        return await FILES.run(self._lookup, registry)

    def _lookup(self, registry: str) -> tuple[RegistryHost, ...]:
        for root in self._roots:
            for name in _directories(registry):
                directory = root / name
                try:
                    if _is_directory(directory):
                        return _read(directory, registry)
                except OSError as error:
                    raise invalid_argument(str(error.filename or directory), error) from error
        return (default_host(registry, Tls(), explicit=False),)


def _is_directory(path: Path) -> bool:
    """Return whether path is a directory. Raises OSError, as Path.is_dir does only before Python 3.14."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def _directories(registry: str) -> tuple[str, ...]:
    host, colon, port = registry.rpartition(":")
    named = (f"{host}_{port}_", registry) if colon and port.isdigit() else (registry,)
    return (*named, "_default")


def _read(directory: Path, registry: str) -> tuple[RegistryHost, ...]:
    file = directory / "hosts.toml"
    try:
        with file.open("rb") as opened:
            text = opened.read(_FILE_LIMIT + 1)
    except FileNotFoundError:
        text = b""
    if not text:
        tls = _docker_certificates(directory)
        return (default_host(registry, tls, explicit=tls != Tls()),)
    if len(text) > _FILE_LIMIT:
        raise InvalidArgument(f"{file}: larger than {_FILE_LIMIT} bytes")
    try:
        return hosts_toml.parse(text, directory, registry)
    except ValueError as error:
        raise InvalidArgument(f"{file}: {error}") from error


def _docker_certificates(directory: Path) -> Tls:
    names = sorted(directory.iterdir())
    pairs = [(name, name.with_suffix(".key")) for name in names if name.suffix == ".cert"]
    return Tls(
        ca=tuple(name for name in names if name.suffix == ".crt"),
        client=tuple((cert, key if key.exists() else None) for cert, key in pairs),
    )
