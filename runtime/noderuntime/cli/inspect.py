"""``noderuntime inspect``: everything that is known of a pod, a container or an image."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from google.protobuf.message import Message

from noderuntime.cli import options, text
from noderuntime.cli.find import find
from noderuntime.core import ids
from noderuntime.core.errors import NotFound, Unimplemented
from noderuntime.criclient import CriClient

_MOMENTS = ("createdAt", "startedAt", "finishedAt", "timestamp")


def run(arguments: Sequence[str]) -> int:
    """Print the status with its info."""
    parser = options.parser("inspect", __doc__)
    options.add_output(parser)
    parser.add_argument("id", help="of a pod, a container or an image, which may be cut; or an image's name")
    chosen = parser.parse_args(arguments)
    found = options.ask(chosen.socket, partial(_inspect, typed=chosen.id))
    if chosen.output == "json":
        sys.stdout.write(options.as_json(found))
    else:
        sys.stdout.writelines(f"{line}\n" for line in _outline(options.as_dict(found)))
    return 0


async def _inspect(client: CriClient, typed: str) -> Message:
    try:
        identifier = await _identify(client, typed)
    except NotFound:
        return await _image(client, typed)
    for status in (client.container, client.sandbox):
        try:
            return await status(identifier)
        except NotFound:
            continue
    return await _image(client, typed)


async def _identify(client: CriClient, typed: str) -> str:
    """Find the full ID. One that is full already needs no lists, which fail while one side is away."""
    if ids.is_ours(typed):
        return typed
    pods, containers = await asyncio.gather(client.sandboxes(), client.containers())
    return find("object", typed, [*(one.id for one in pods), *(one.id for one in containers)])


async def _image(client: CriClient, typed: str) -> Message:
    missing = NotFound(f"no pod, container or image {typed[:64]}")
    try:
        answer = await client.image(typed)
    except (NotFound, Unimplemented):
        raise missing from None
    if not answer.HasField("image"):
        raise missing
    return answer


def _outline(value: Any, indent: str = "") -> Iterator[str]:
    """Write fields as indented lines, without those that are empty."""
    pairs = value.items() if isinstance(value, dict) else (("-", one) for one in value)
    for key, one in pairs:
        name = text.printable(str(key)) if key == "-" else f"{text.printable(str(key))}:"
        if isinstance(one, dict | list):
            if one:
                yield f"{indent}{name}"
                yield from _outline(one, f"{indent}  ")
        elif key in _MOMENTS:
            if int(one):
                yield f"{indent}{name} {text.moment(int(one))}"
        elif one not in ("", None):
            yield f"{indent}{name} {text.printable(_plain(one))}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
