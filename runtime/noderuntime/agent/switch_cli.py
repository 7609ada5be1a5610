"""``noderuntime switch VERB``: run on the node by units of systemd, or by hand."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence

from noderuntime.agent import durable_files as files
from noderuntime.agent.layout import Layout
from noderuntime.agent.switch.context import Context, locked
from noderuntime.agent.switch.revert import revert
from noderuntime.agent.switch.run import apply, finish
from noderuntime.agent.switch.status import status
from noderuntime.agent.switch.uninstall import uninstall
from noderuntime.agent.systemd import Systemd
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition
from noderuntime.node.host.linux import LinuxHost

_VERBS = {
    "apply": "bring the node to where /etc/noderuntime/switch.toml wants it",
    "revert": "give the kubelet the runtime that it had before",
    "resume": "finish or undo what a crash or a reboot cut off",
    "uninstall": "revert, and remove everything of noderuntime from this node",
    "status": "print what the switch knows, as JSON",
}


def run_switch(argv: Sequence[str]) -> int:
    """Run one verb; errors are raised for the command line to print."""
    parser = argparse.ArgumentParser(prog="noderuntime switch", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, words in _VERBS.items():
        verb = verbs.add_parser(name, help=words)
        if name == "revert":
            verb.add_argument("--expired", action="store_true", help="only if a switch is not finished")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        raise FailedPrecondition("the switch changes the kubelet's settings: it must run as root")
    log.configure("info")
    with files.host_errors(f"switch {options.verb}"):
        said = asyncio.run(_run(options))
    if said:
        print(said)
    return 0


async def _run(options: argparse.Namespace) -> str:
    host = LinuxHost()
    context = Context(Layout(), host, Systemd(host))
    if options.verb == "apply":
        result = await apply(context)
        return f"{result.reason} {result.message}".strip() if result else "removed from this node"
    if options.verb == "revert":
        return await revert(context, expired=options.expired)
    if options.verb == "status":
        return await status(context)
    async with locked(context):
        if options.verb == "uninstall":
            await finish(context)
            await uninstall(context)
            return "removed from this node"
        await finish(context)
        return ""
