"""What tools say, as one line that may be shown in a kubelet's event."""

from __future__ import annotations

import json
import re

_LONGEST = 1024
_LOGRUS = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg=(?P<msg>"(?:[^"\\]|\\.)*")')


def one_line(text: str) -> str:
    """Return the last complaint in a tool's output: without timestamps, control characters or length.

    Understands plain text and logrus' text format; warnings before an error are left out.
    """
    lines = [_unwrap(line) for line in text.splitlines() if line.strip()]
    errors = [message for level, message in lines if level in ("error", "fatal", "")]
    said = errors[-1] if errors else (lines[-1][1] if lines else "")
    clean = "".join(char if char.isprintable() else " " for char in said).strip()
    return clean if len(clean) <= _LONGEST else clean[:_LONGEST] + " …"


def _unwrap(line: str) -> tuple[str, str]:
    """Split a line into level and message; plain text has no level."""
    match = _LOGRUS.match(line)
    if match is None:
        return "", line
    try:
        return match["level"], str(json.loads(match["msg"]))
    except ValueError:
        return match["level"], match["msg"]
