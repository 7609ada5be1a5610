"""Print to terminals, pipes and programs. Strings of API objects are untrusted."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from noderuntime.cli.text import printable

_WIDE = 1 << 20
"""Columns of a pipe: rich crops trees that are wider."""


def console() -> Console:
    """Return standard output. Colours and wrapping need a terminal; NO_COLOR turns colours off."""
    terminal = sys.stdout.isatty()
    colours = terminal and not os.environ.get("NO_COLOR")
    return Console(
        color_system="auto" if colours else None,
        force_terminal=terminal,
        markup=False,
        highlight=False,
        emoji=False,
        width=None if terminal else _WIDE,
    )


def show(content: RenderableType) -> None:
    """Print text or a tree: wrapped on a terminal, else one line for each entry."""
    console().print(content)


def as_json(value: Any, indent: int | None = None) -> str:
    """Return JSON. All but printable ASCII is escaped, so it is safe for terminals."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    print(as_json(value, indent=2))


def clean(text: object) -> str:
    """Return an untrusted string as one line without control characters."""
    return printable(" ".join(str(text).split()))


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return a text of strings and pairs of string and style, each made safe for the terminal."""
    made = Text()
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        made.append(printable(text), style)
    return made


def say(text: str) -> None:
    """Print one line about what was done."""
    print(printable(text))
