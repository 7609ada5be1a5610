"""Checks of the files that the native image store reads for every pull. No registry is contacted."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from noderuntime.config import ImagesConfig
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument
from noderuntime.doctor.finding import Finding, fail, ok, warn
from noderuntime.images.credentials import CredentialsFile
from noderuntime.images.registry.hosts import Hosts

_PORT = re.compile(r"_([0-9]+)_$")
_DEFAULT = "_default"
_ANY = "registry.invalid"
"""A registry name that never has a directory of its own (RFC 2606)."""


async def registries(images: ImagesConfig) -> list[Finding]:
    """Check every registry's directory and the credentials file."""
    if images.backend != "native":
        return []
    found = [
        await _hosts(root, directory) for root in images.certs_dirs for directory in _subdirectories(root)
    ]
    if images.credentials is not None:
        found.append(await _credentials(images.credentials))
    return found


def _subdirectories(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(entry for entry in root.iterdir() if entry.is_dir())


async def _hosts(root: Path, directory: Path) -> Finding:
    check = f"registry {directory.name}"
    registry = _ANY if directory.name == _DEFAULT else _PORT.sub(r":\1", directory.name)
    try:
        hosts = await Hosts([root]).lookup(registry)
    except InvalidArgument as error:
        return fail(check, str(error), "correct the file: until then, pulls from this registry fail")
    return ok(check, f"hosts tried in order: {', '.join(host.authority for host in hosts)}")


async def _credentials(path: Path) -> Finding:
    check = "registry credentials"
    try:
        await CredentialsFile(path).check()
    except InvalidArgument as error:
        return fail(check, str(error), "correct the file, or images.credentials")
    try:
        mode = (await FILES.run(path.stat)).st_mode
    except FileNotFoundError:
        return warn(
            check, f"{path} does not exist", "create it, or remove images.credentials from the configuration"
        )
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        return warn(check, f"{path} can be read by users other than root", f"chmod 600 {path}")
    return ok(check, str(path))
