"""``noderuntime inspect``: Show the details of a pod, a container or an image."""

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

_TIMESTAMPS = ("createdAt", "startedAt", "finishedAt", "timestamp")


def run(arguments: Sequence[str]) -> int:
    """Print the verbose status of an object."""
    parser = options.parser("inspect", __doc__)
    options.add_output(parser)
    parser.add_argument(
        "id", help="ID of a pod, container or image, or a unique prefix of one; or an image's name"
    )
    args = parser.parse_args(arguments)
    found = options.call(args.socket, partial(_inspect, reference=args.id))
    if args.output == "json":
        sys.stdout.write(options.as_json(found))
    else:
        sys.stdout.writelines(f"{line}\n" for line in _outline(options.as_dict(found)))
    return 0


async def _inspect(client: CriClient, reference: str) -> Message:
    try:
        identifier = await _identify(client, reference)
    except NotFound:
        return await _image(client, reference)
    for status in (client.container, client.sandbox):
        try:
            return await status(identifier)
        except NotFound:
            continue
    return await _image(client, reference)


async def _identify(client: CriClient, reference: str) -> str:
    """Return the full ID of a pod or container."""
    if ids.is_ours(reference):  # the lists fail while the upstream is unavailable
        return reference
    pods, containers = await asyncio.gather(client.sandboxes(), client.containers())
    return find("object", reference, [*(pod.id for pod in pods), *(container.id for container in containers)])


async def _image(client: CriClient, reference: str) -> Message:
    missing = NotFound(f"no pod, container or image {reference[:64]}")
    try:
        answer = await client.image(reference)
    except (NotFound, Unimplemented):
        raise missing from None
    if not answer.HasField("image"):
        raise missing
    return answer


def _outline(value: Any, indent: str = "") -> Iterator[str]:
    """Return the fields that are not empty as indented lines."""
    pairs = value.items() if isinstance(value, dict) else (("-", item) for item in value)
    for key, item in pairs:
        name = text.printable(str(key)) if key == "-" else f"{text.printable(str(key))}:"
        if isinstance(item, dict | list):
            if item:
                yield f"{indent}{name}"
                yield from _outline(item, f"{indent}  ")
        elif key in _TIMESTAMPS:
            if int(item):
                yield f"{indent}{name} {text.timestamp(int(item))}"
        elif item not in ("", None):
            yield f"{indent}{name} {text.printable(_plain(item))}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
