"""The drop-in for a kubelet whose endpoint is set in its unit. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from noderuntime.agent.switch import flags

FLAG = "container-runtime-endpoint"
_HEAD = "# Written by noderuntime's switch, which removes it when it reverts the kubelet.\n[Service]\n"


def mentions_flag(units: Iterable[str]) -> bool:
    """Return whether an effective line of the unit or its drop-ins contains the flag."""
    commands, environment = _effective(units)
    return any(flags.first_in(line, FLAG) for line in (*commands, *environment))


def override(units: Iterable[str], endpoint: str) -> str:
    """Return a drop-in that repeats the unit files' commands and environment with another endpoint.

    The unit files are in systemd's order. If none has the flag, it is appended to the command.
    """
    units = tuple(units)
    commands, environment = _effective(units)
    if not mentions_flag(units):
        commands = [*commands[:-1], f"{commands[-1]} --{FLAG}={endpoint}"]
    lines = [flags.replace(line, FLAG, endpoint) for line in environment if flags.first_in(line, FLAG)]
    changed = [flags.replace(line, FLAG, endpoint) for line in commands]
    if changed != _effective(units)[0]:
        lines += ["ExecStart=", *(f"ExecStart={line}" for line in changed)]
    return _HEAD + "".join(f"{line}\n" for line in lines)


def _effective(units: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the effective commands of ExecStart= and lines of Environment=."""
    commands: list[str] = []
    environment: list[str] = []
    for text in units:
        section = ""
        for line in _joined(text):
            key, _, value = line.partition("=")
            if line.startswith("["):
                section = line
            elif section != "[Service]":
                continue
            elif key.strip() == "ExecStart":
                commands = [*commands, value.strip()] if value.strip() else []
            elif key.strip() == "Environment":
                environment = [*environment, line] if value.strip() else []
    return commands, environment


def _joined(text: str) -> list[str]:
    """Return the logical lines: with continuations joined, without comments and blank lines."""
    lines: list[str] = []
    pending = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            pending += line[:-1].rstrip() + " "
            continue
        if pending + line:
            lines.append(pending + line)
        pending = ""
    return lines
