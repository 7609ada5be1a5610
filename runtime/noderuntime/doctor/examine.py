"""All checks, in the order in which a person would mend what they find."""

from __future__ import annotations

import asyncio
from pathlib import Path

from noderuntime import config
from noderuntime.config import Config
from noderuntime.core.errors import InvalidArgument
from noderuntime.doctor import kernel
from noderuntime.doctor.cgroups import cgroups
from noderuntime.doctor.disk import disk
from noderuntime.doctor.finding import Finding, bad, good
from noderuntime.doctor.network import network
from noderuntime.doctor.registries import registries
from noderuntime.doctor.sockets import sockets
from noderuntime.doctor.tools import tools
from noderuntime.node.host.cgroup import Cgroups
from noderuntime.node.host.linux import LinuxHost


async def examine(path: Path) -> list[Finding]:
    """Look at this node with the daemon's configuration file; without a valid one at less."""
    try:
        settings, about = config.load(path), good("configuration", str(path))
    except InvalidArgument as error:
        settings = None
        about = bad("configuration", str(error), "correct the file; what depends on it was not looked at")
    found = [kernel.user(), about, *await asyncio.to_thread(_kernel, settings)]
    return found if settings is None else [*found, *await _configured(settings)]


def _kernel(settings: Config | None) -> list[Finding]:
    profile = () if settings is None else kernel.seccomp(settings.tools.seccomp_profile)
    return [
        kernel.system_calls(),
        *cgroups(Cgroups()),
        kernel.overlayfs(),
        *profile,
        kernel.forwarding(),
    ]


async def _configured(settings: Config) -> list[Finding]:
    host = LinuxHost()
    return [
        *await tools(settings, host),
        *await asyncio.to_thread(lambda: list(network(settings.network, host))),
        *await registries(settings.images),
        *await sockets(settings),
        *await asyncio.to_thread(lambda: list(disk(settings.server))),
    ]
