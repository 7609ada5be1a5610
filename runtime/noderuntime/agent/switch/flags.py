"""Reading and editing a flag in a command line, an environment file or a unit. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence


def last(argv: Sequence[str], name: str) -> str | None:
    """Return the effective value: that of the last ``--name=value`` or ``--name value``."""
    found = None
    for index, argument in enumerate(argv):
        if argument == f"--{name}" and index + 1 < len(argv):
            found = argv[index + 1]
        elif argument.startswith(f"--{name}="):
            found = argument.split("=", 1)[1]
    return found


def first_in(text: str, name: str) -> str | None:
    """Return the flag's first value in a text of shell-like lines. Comments are ignored."""
    for line in text.splitlines():
        match = None if _is_comment(line) else _pattern(name).search(line)
        if match:
            return match["value"]
    return None


def replace(text: str, name: str, value: str) -> str:
    """Return the text with every value of the flag replaced; every other byte stays."""
    return "".join(
        line if _is_comment(line) else _pattern(name).sub(lambda match: match["flag"] + value, line)
        for line in text.splitlines(keepends=True)
    )


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"""(?P<flag>(?<![\w-])--{re.escape(name)}(?:=|[ \t]+)["']?)(?P<value>[^\s"'\\]+)""")


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(("#", ";"))
