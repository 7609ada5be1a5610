"""All checks, in the order in which to fix what they find."""

from __future__ import annotations

from pathlib import Path

from noderuntime import config
from noderuntime.config import Config
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument
from noderuntime.doctor import kernel
from noderuntime.doctor.cgroups import cgroups
from noderuntime.doctor.disk import disk
from noderuntime.doctor.finding import Finding, fail, ok
from noderuntime.doctor.network import network
from noderuntime.doctor.registries import registries
from noderuntime.doctor.sockets import sockets
from noderuntime.doctor.tools import tools
from noderuntime.node.host.cgroup import Cgroups
from noderuntime.node.host.linux import LinuxHost


async def examine(path: Path) -> list[Finding]:
    """Return the findings of all checks; if the configuration is invalid, of those that do not need it."""
    try:
        settings, finding = config.load(path), ok("configuration", str(path))
    except InvalidArgument as error:
        settings = None
        finding = fail("configuration", str(error), "correct the file; checks that depend on it were skipped")
    found = [kernel.user(), finding, *await FILES.run(_kernel, settings)]
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
        *await network(settings.network, host),
        *await registries(settings.images),
        *await sockets(settings),
        *await FILES.run(lambda: list(disk(settings.server))),
    ]
