"""``noderuntime status``: Show the state of the daemon, its network and its handlers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence

from noderuntime.cli import options, text
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient, handler_errors, handler_versions

_CONDITIONS = ("CONDITION", "STATUS", "REASON", "MESSAGE")
_HANDLERS = ("HANDLER", "OF", "VERSION", "FEATURES")


def run(arguments: Sequence[str]) -> int:
    """Print the version, the conditions and the handlers."""
    parser = options.parser("status", __doc__)
    options.add_output(parser)
    args = parser.parse_args(arguments)
    version, status = options.call(args.socket, _fetch)
    if args.output == "json":
        both = {"version": options.as_dict(version), **options.as_dict(status)}
        sys.stdout.write(options.as_json(both))
        return 0
    name = text.printable(f"{version.runtime_name} {version.runtime_version}")
    print(f"{name}, CRI {text.printable(version.runtime_api_version)}, at {args.socket}\n")
    sys.stdout.write(text.table(_CONDITIONS, _conditions(status)))
    print()
    sys.stdout.write(text.table(_HANDLERS, _handlers(status)))
    return 0


async def _fetch(client: CriClient) -> tuple[cri.VersionResponse, cri.StatusResponse]:
    version, status = await asyncio.gather(client.version(), client.status())
    return version, status


def _conditions(status: cri.StatusResponse) -> Iterable[Sequence[str]]:
    for condition in status.status.conditions:
        yield condition.type, str(condition.status), condition.reason, condition.message


def _handlers(status: cri.StatusResponse) -> Iterable[Sequence[str]]:
    """Return a row for each handler. Those of noderuntime show the binary's version, or the probe's error."""
    versions = {**handler_versions(status), **handler_errors(status)}
    for handler in status.runtime_handlers:
        features = [field.name for field, value in handler.features.ListFields() if value is True]
        side = "noderuntime" if handler.name in versions else "upstream"
        yield handler.name or "(default)", side, versions.get(handler.name, ""), ", ".join(features)
