"""Options, connection and JSON output shared by the commands that call the daemon."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from noderuntime.config import SOCKET
from noderuntime.core import loop
from noderuntime.core.errors import Unavailable
from noderuntime.criclient import CriClient

T = TypeVar("T")


def parser(command: str, module_docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser with ``--socket``. Its description is the docstring's text after the command's name."""
    made = argparse.ArgumentParser(
        prog=f"noderuntime {command}", description=(module_docstring or "").partition(": ")[2]
    )
    made.add_argument(
        "--socket", type=Path, default=SOCKET, help="the daemon's socket (default: %(default)s)"
    )
    return made


def add_output(made: argparse.ArgumentParser) -> None:
    """Add the option ``-o`` to a parser."""
    made.add_argument(
        "-o",
        "--output",
        choices=("text", "json"),
        default="text",
        help="output format (default: %(default)s)",
    )


def call(socket: Path, request: Callable[[CriClient], Awaitable[T]]) -> T:
    """Return the result of a request to the daemon. Unavailable suggests ``noderuntime doctor``."""

    async def called() -> T:
        async with CriClient(socket) as client:
            return await request(client)

    try:
        return loop.run(called())
    except Unavailable as error:
        raise Unavailable(f"{error} (for the cause, run noderuntime doctor as root)") from error


def as_json(value: Message | Mapping[str, Any]) -> str:
    """Return a message, or messages by name, as proto3 JSON with all fields, escaped for terminals."""
    plain = as_dict(value) if isinstance(value, Message) else value
    return json.dumps(plain, indent=2).replace("\x7f", "\\u007f") + "\n"


def as_dict(message: Message) -> dict[str, Any]:
    """Return the fields of a message by their JSON names. Values of ``info`` that are JSON are parsed."""
    fields: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=True)
    if isinstance(info := fields.get("info"), dict):
        fields["info"] = {key: _parsed(text) for key, text in info.items()}
    return fields


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
