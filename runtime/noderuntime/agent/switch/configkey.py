"""Reading and editing one top-level string of a KubeletConfiguration; every other byte stays. Pure functions.

The kubelet reads YAML, which includes JSON. A YAML library would lose comments and the order of keys, so
this module edits the one line. It refuses forms that it cannot edit safely: anchors, tags, block scalars,
several documents.
"""

from __future__ import annotations

import json
import re

from noderuntime.core.errors import FailedPrecondition

_SCALAR = r"""(?P<value>"[^"\\]*"|'[^']*'|[^\s#&*!|>%@`"'{\[][^\n#]*?|)"""


def get(text: str, key: str) -> str | None:
    """Return the key's value, or None if it is not set."""
    match = _find(text, key)
    return match["value"].strip("\"'") or None if match else None


def put(text: str, key: str, value: str) -> str:
    """Return the text with the key set. Raises FailedPrecondition if it cannot be edited safely."""
    match = _find(text, key)
    if match:
        start, end = match.span("value")
        written = json.dumps(value) if _is_flow(text) else value
        space = "" if text[start - 1] in " \t" or _is_flow(text) else " "
        tail = " " if text[end : end + 1] == "#" else ""
        return text[:start] + space + written + tail + text[end:]
    if _is_flow(text):
        brace = text.index("{") + 1
        comma = "" if text[brace:].lstrip().startswith("}") else ","
        return f"{text[:brace]}\n {json.dumps(key)}: {json.dumps(value)}{comma}{text[brace:]}"
    newline = "\r\n" if "\r\n" in text else "\n"
    gap = "" if not text or text.endswith("\n") else newline
    return f"{text}{gap}{key}: {value}{newline}"


def _find(text: str, key: str) -> re.Match[str] | None:
    if _is_flow(text):
        pattern = rf'"{key}"[ \t\r\n]*:[ \t\r\n]*(?P<value>"[^"\\]*"|-?\d+)'
        mentions = rf'"{key}"'
    else:
        _refuse_documents(text)
        name = rf"""(?m)^(?:{key}|"{key}"|'{key}')[ \t]*:"""
        pattern = rf"{name}[ \t]*{_SCALAR}[ \t]*(?:#.*)?\r?$(?!\n[ \t]+[^\s#])"
        mentions = name
    matches = list(re.finditer(pattern, text))
    if len(matches) > 1 or len(matches) != len(re.findall(mentions, text)):
        raise FailedPrecondition(f"{key} is written in a form that cannot be edited safely")
    return matches[0] if matches else None


def _is_flow(text: str) -> bool:
    return text.lstrip("\ufeff \t\r\n").startswith("{")


def _refuse_documents(text: str) -> None:
    body = re.sub(r"\A(?:[ \t]*(?:#.*)?\r?\n)*---[ \t]*(?:#.*)?\r?\n", "", text)
    if re.search(r"(?m)^(?:---|\.\.\.|%)", body):
        raise FailedPrecondition(
            "a kubelet configuration with several YAML documents cannot be edited safely"
        )
