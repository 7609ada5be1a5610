"""What commands that talk to the daemon have in common: options, the connection, and JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from noderuntime.config import SOCKET
from noderuntime.core.errors import Unavailable
from noderuntime.criclient import CriClient

T = TypeVar("T")


def parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows ``--socket``; the description is a module's, which begins with its name."""
    made = argparse.ArgumentParser(
        prog=f"noderuntime {command}", description=(description or "").partition(": ")[2]
    )
    made.add_argument("--socket", type=Path, default=SOCKET, help="of the daemon; default: %(default)s")
    return made


def add_output(made: argparse.ArgumentParser) -> None:
    """Give a parser ``-o``."""
    made.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: %(default)s")


def ask(socket: Path, question: Callable[[CriClient], Awaitable[T]]) -> T:
    """Return what the daemon answers; Unavailable also says where to look."""

    async def asked() -> T:
        async with CriClient(socket) as client:
            return await question(client)

    try:
        return asyncio.run(asked())
    except Unavailable as error:
        raise Unavailable(f"{error} (noderuntime doctor, run as root, tells more)") from error


def as_json(value: Message | Mapping[str, Any]) -> str:
    """Write a message, or messages by name, as proto3 JSON with all fields, safe on any terminal."""
    plain = as_dict(value) if isinstance(value, Message) else value
    return json.dumps(plain, indent=2).replace("\x7f", "\\u007f") + "\n"


def as_dict(message: Message) -> dict[str, Any]:
    """Return the fields of a message under their JSON names, in ``info`` what is JSON itself taken apart."""
    fields: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=True)
    if isinstance(info := fields.get("info"), dict):
        fields["info"] = {key: _parsed(text) for key, text in info.items()}
    return fields


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
