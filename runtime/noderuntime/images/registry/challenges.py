"""Parses the challenges of WWW-Authenticate headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_HEADER_LIMIT = 8 << 10
_SCHEME = re.compile(r"[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:[ \t]+|(?=,)|\Z)")
_PARAMETER = re.compile(
    r'[ \t,]*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))'
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One authentication scheme that a host accepts (RFC 9110, 11.6.1)."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges of WWW-Authenticate headers. Each is parsed up to its first syntax error."""
    found = []
    for value in values:
        text, position = value[:_HEADER_LIMIT], 0
        while scheme := _SCHEME.match(text, position):
            position = scheme.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(text, position):
                position = parameter.end()
                name, quoted, plain = parameter.groups()
                unquoted = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                parameters.setdefault(name.lower(), unquoted)
            found.append(Challenge(scheme.group(1).lower(), parameters))
    return tuple(found)
