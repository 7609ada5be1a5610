"""``noderuntime check``: Check whether this version can serve this node. Changes nothing."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from noderuntime import config
from noderuntime.core.errors import FailedPrecondition
from noderuntime.doctor.databases import databases
from noderuntime.doctor.finding import Finding, State
from noderuntime.doctor.tools import handler_check, tools
from noderuntime.node.host.linux import LinuxHost


def run(arguments: Sequence[str]) -> int:
    """Return 0 if this version can serve; the error names everything that prevents it."""
    parser = argparse.ArgumentParser(
        prog="noderuntime check",
        description="Check whether this version can serve this node: the configuration is valid, the programs"
        " run, and copies of the databases can be migrated. Nothing is changed.",
    )
    parser.add_argument(
        "--config", type=Path, default=config.CONFIG_FILE, help="configuration file (default: %(default)s)"
    )
    parser.add_argument(
        "--drop-ins", type=Path, help="directory of its drop-ins (default: conf.d beside the file)"
    )
    parser.add_argument(
        "--handlers",
        metavar="NAME,...",
        help="the handlers whose programs must run, perhaps none (default: all)",
    )
    options = parser.parse_args(arguments)
    settings = config.load(options.config, options.drop_ins)
    required = None if options.handlers is None else options.handlers.split(",")
    failed = asyncio.run(_failures(settings, required))
    if failed:
        raise FailedPrecondition("; ".join(f"{finding.check}: {finding.found}" for finding in failed))
    return 0


async def _failures(settings: config.Config, required: Sequence[str] | None) -> list[Finding]:
    optional = set() if required is None else settings.handlers.keys() - set(required)
    ignored = {handler_check(name) for name in optional}
    found = [*await tools(settings, LinuxHost()), *databases(settings.server.state_dir)]
    return [finding for finding in found if finding.state is State.FAIL and finding.check not in ignored]
