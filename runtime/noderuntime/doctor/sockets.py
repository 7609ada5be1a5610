"""Checks of the daemon's socket and of the sockets that the daemon depends on."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from noderuntime.config import Config
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import NoderuntimeError
from noderuntime.criclient import CriClient
from noderuntime.doctor.finding import Finding, fail, ok, warn

_SECONDS = 5.0


async def sockets(config: Config) -> list[Finding]:
    """Check that each socket is served, and report the server's name and version."""
    checks = [_ours(config.server.socket)]
    if config.upstream is not None:
        checks.append(_upstream(config.upstream.socket))
    if await FILES.run(_has_own_image_store, config):
        checks.append(FILES.run(_image_store, config.images.containerd_socket))
    return list(await asyncio.gather(*checks))


async def _ours(path: Path) -> Finding:
    check = "noderuntime socket"
    if not await FILES.run(path.exists):
        return warn(
            check,
            f"{path} does not exist: the daemon is not running",
            "run systemctl status noderuntime.service",
        )
    try:
        return ok(check, f"{path}: {await _name(path)}")
    except NoderuntimeError as error:
        return fail(check, str(error), "see journalctl -u noderuntime.service for the cause")


async def _upstream(path: Path) -> Finding:
    check = "upstream"
    try:
        return ok(check, f"{path}: {await _name(path)}")
    except NoderuntimeError as error:
        return fail(
            check,
            str(error),
            "start the upstream runtime, or correct upstream.socket: without it every list call fails",
        )


async def _name(path: Path) -> str:
    async with CriClient(path) as client:
        version = await client.version()
    return f"{version.runtime_name} {version.runtime_version}"


def _has_own_image_store(config: Config) -> bool:
    if config.images.backend != "containerd":
        return False
    if config.upstream is None:
        return True
    return os.path.realpath(config.upstream.socket) != os.path.realpath(config.images.containerd_socket)


def _image_store(path: Path) -> Finding:
    check = "image store"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(str(path))
        except OSError as error:
            return fail(check, f"{path}: {error}", "start containerd, or correct images.containerd_socket")
    return ok(check, str(path))
