"""What the native image store reads for every pull; no registry is asked anything."""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from noderuntime.config import ImagesConfig
from noderuntime.core.errors import InvalidArgument
from noderuntime.doctor.finding import Finding, bad, good, poor
from noderuntime.images.credentials import CredentialsFile
from noderuntime.images.registry.hosts import Hosts

_PORT = re.compile(r"_([0-9]+)_$")
_DEFAULT = "_default"
_ANY = "registry.invalid"
"""A registry that nobody has a directory for."""


async def registries(images: ImagesConfig) -> list[Finding]:
    """Read every registry's directory, and the passwords."""
    if images.backend != "native":
        return []
    found = [await _hosts(root, directory) for root in images.certs_dirs for directory in _below(root)]
    if images.credentials is not None:
        found.append(await _credentials(images.credentials))
    return found


def _below(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(entry for entry in root.iterdir() if entry.is_dir())


async def _hosts(root: Path, directory: Path) -> Finding:
    check = f"registry {directory.name}"
    registry = _ANY if directory.name == _DEFAULT else _PORT.sub(r":\1", directory.name)
    try:
        hosts = await Hosts([root]).lookup(registry)
    except InvalidArgument as error:
        return bad(check, str(error), "correct the file: pulls from there fail as long as it is so")
    return good(check, f"asks {', '.join(host.authority for host in hosts)}")


async def _credentials(path: Path) -> Finding:
    check = "registry credentials"
    try:
        await CredentialsFile(path).find(_ANY, "image")
    except InvalidArgument as error:
        return bad(check, str(error), "correct the file, or images.credentials")
    try:
        mode = (await asyncio.to_thread(path.stat)).st_mode
    except FileNotFoundError:
        return poor(check, f"{path} is not there", "write it, or take images.credentials out")
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        return poor(check, f"{path} can be read by others than root", f"chmod 600 {path}")
    return good(check, str(path))
