"""The sockets: who answers at ours, and at those that we depend on."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from noderuntime.config import Config
from noderuntime.core.errors import NoderuntimeError
from noderuntime.criclient import CriClient
from noderuntime.doctor.finding import Finding, bad, good, poor

_SECONDS = 5.0


async def sockets(config: Config) -> list[Finding]:
    """Ask whoever serves each socket who he is."""
    wanted = [_ours(config.server.socket)]
    if config.upstream is not None:
        wanted.append(_upstream(config.upstream.socket))
    if await asyncio.to_thread(_has_own_image_store, config):
        wanted.append(asyncio.to_thread(_image_store, config.images.containerd_socket))
    return list(await asyncio.gather(*wanted))


async def _ours(path: Path) -> Finding:
    check = "our socket"
    if not await asyncio.to_thread(path.exists):
        return poor(
            check, f"{path} is not there: the daemon does not run", "systemctl status noderuntime.service"
        )
    try:
        return good(check, f"{path}: {await _name(path)}")
    except NoderuntimeError as error:
        return bad(check, str(error), "journalctl -u noderuntime.service tells why")


async def _upstream(path: Path) -> Finding:
    check = "upstream"
    try:
        return good(check, f"{path}: {await _name(path)}")
    except NoderuntimeError as error:
        return bad(
            check,
            str(error),
            "start the node's own runtime, or correct upstream.socket: without it every list fails",
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
            return bad(check, f"{path}: {error}", "start containerd, or correct images.containerd_socket")
    return good(check, str(path))
