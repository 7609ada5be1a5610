"""``noderuntime status``: how the daemon, its network and its handlers are."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from noderuntime.cli import options, text
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient

_CONDITIONS = ("CONDITION", "STATUS", "REASON", "MESSAGE")
_HANDLERS = ("HANDLER", "OF", "VERSION", "FEATURES")


def run(arguments: Sequence[str]) -> int:
    """Print version, conditions and handlers."""
    parser = options.parser("status", __doc__)
    options.add_output(parser)
    chosen = parser.parse_args(arguments)
    version, status = options.ask(chosen.socket, _asked)
    if chosen.output == "json":
        both = {"version": options.as_dict(version), **options.as_dict(status)}
        sys.stdout.write(options.as_json(both))
        return 0
    name = text.printable(f"{version.runtime_name} {version.runtime_version}")
    print(f"{name}, CRI {text.printable(version.runtime_api_version)}, at {chosen.socket}\n")
    sys.stdout.write(text.table(_CONDITIONS, _conditions(status)))
    print()
    sys.stdout.write(text.table(_HANDLERS, _handlers(status)))
    return 0


async def _asked(client: CriClient) -> tuple[cri.VersionResponse, cri.StatusResponse]:
    version, status = await asyncio.gather(client.version(), client.status())
    return version, status


def _conditions(status: cri.StatusResponse) -> Iterable[Sequence[str]]:
    for one in status.status.conditions:
        yield one.type, str(one.status), one.reason, one.message


def _handlers(status: cri.StatusResponse) -> Iterable[Sequence[str]]:
    """Give a row for each handler; for ours with what the binary says of itself, or why it does not."""
    ours = _words(status)
    for handler in status.runtime_handlers:
        features = [field.name for field, value in handler.features.ListFields() if value is True]
        side = "noderuntime" if handler.name in ours else "upstream"
        yield handler.name or "(default)", side, ours.get(handler.name, ""), ", ".join(features)


def _words(status: cri.StatusResponse) -> Mapping[str, str]:
    """Return what ``info`` tells of our handlers."""
    try:
        words: Mapping[str, str] = json.loads(status.info["noderuntime"])["handlers"]
    except (KeyError, ValueError):
        return {}
    return words
