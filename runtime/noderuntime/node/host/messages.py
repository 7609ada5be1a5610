"""Error messages of programs, as one line that can be shown in a kubelet's event."""

from __future__ import annotations

import json
import re

_LONGEST = 1024
_LOGRUS = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg=(?P<msg>"(?:[^"\\]|\\.)*")')


def one_line(text: str) -> str:
    """Return the last error message in a program's output, without timestamps and control characters.

    Parses plain text and the text format of logrus. Ignores warnings if there is an error. Truncates the
    message to 1024 characters.
    """
    lines = [_unwrap(line) for line in text.splitlines() if line.strip()]
    errors = [message for level, message in lines if level in ("error", "fatal", "")]
    last = errors[-1] if errors else (lines[-1][1] if lines else "")
    clean = "".join(char if char.isprintable() else " " for char in last).strip()
    return clean if len(clean) <= _LONGEST else clean[:_LONGEST] + " …"


def _unwrap(line: str) -> tuple[str, str]:
    """Split a line into its level and its message. Plain text has an empty level."""
    match = _LOGRUS.match(line)
    if match is None:
        return "", line
    try:
        return match["level"], str(json.loads(match["msg"]))
    except ValueError:
        return match["level"], match["msg"]
