"""The entry point of ``noderuntime switch VERB``, which systemd units or administrators run on the node."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from noderuntime.agent.layout import Layout
from noderuntime.agent.switch.context import Context, locked
from noderuntime.agent.switch.fallback import fallback
from noderuntime.agent.switch.revert import revert
from noderuntime.agent.switch.run import apply, resume
from noderuntime.agent.switch.status import status
from noderuntime.agent.switch.uninstall import uninstall
from noderuntime.agent.systemd import Systemd
from noderuntime.core import log, loop
from noderuntime.core.errors import FailedPrecondition, file_error, os_errors
from noderuntime.node.host.linux import LinuxHost

_VERBS = {
    "apply": "bring the node to the state that /etc/noderuntime/switch.toml describes",
    "revert": "switch the kubelet back to its previous runtime",
    "resume": "complete or roll back a switch that a crash or reboot interrupted",
    "fallback": "return to the release that served before, if systemd gave up the daemon",
    "uninstall": "revert, and remove noderuntime from this node",
    "status": "print the state of the switch as JSON",
}


def run_switch(argv: Sequence[str]) -> int:
    """Run one verb and return 0. Raises NoderuntimeError, which the command line prints."""
    parser = argparse.ArgumentParser(
        prog="noderuntime switch", description="Switch the kubelet of this node to noderuntime, or back."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, summary in _VERBS.items():
        verb = verbs.add_parser(name, help=summary)
        if name == "revert":
            verb.add_argument("--expired", action="store_true", help="roll back only what is incomplete")
            verb.add_argument(
                "--force",
                action="store_true",
                help="revert although pods run; the log names them and what becomes of them",
            )
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        raise FailedPrecondition("the switch changes the kubelet's settings: run it as root")
    log.configure("info")
    with os_errors(f"switch {options.verb}", file_error):
        output = loop.run(_run(options))
    if output:
        print(output)
    return 0


async def _run(options: argparse.Namespace) -> str:
    host = LinuxHost()
    context = Context(Layout(), host, Systemd(host))
    if options.verb == "apply":
        result = await apply(context)
        return f"{result.reason} {result.message}".strip() if result else "removed from this node"
    if options.verb == "revert":
        return await revert(context, expired=options.expired, force=options.force)
    if options.verb == "fallback":
        return await fallback(context)
    if options.verb == "status":
        return await status(context)
    async with locked(context):
        if options.verb == "uninstall":
            await resume(context)
            await uninstall(context)
            return "removed from this node"
        await resume(context)
        return ""
