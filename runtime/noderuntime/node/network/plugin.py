"""One call of one CNI plugin: environment and configuration in, result or one line of error out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import NotFound, ToolError
from noderuntime.node.host.base import Completed, Host

_TIMEOUT = 90.0
"""Seconds; the kubelet itself gives up on a sandbox after four minutes."""

_WORDS_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """What is the same for every plugin of a chain (CNI spec 1.1, section 2, Parameters)."""

    command: str
    container_id: str
    netns: str
    args: str
    interface: str = "eth0"


class PluginRunner:
    """Runs plugins out of the node's plugin directories."""

    def __init__(self, host: Host, plugin_dirs: Sequence[Path]) -> None:
        self._host = host
        self._dirs = tuple(plugin_dirs)

    def find(self, kind: str) -> Path:
        """Return the plugin's path; NotFound names the directories that were searched."""
        for directory in self._dirs:
            if os.access(directory / kind, os.X_OK):
                return directory / kind
        raise NotFound(f"CNI plugin {kind} is not in {', '.join(map(str, self._dirs))}")

    async def run(self, kind: str, call: Call, config: Mapping[str, Any]) -> dict[str, Any]:
        """Call the plugin; ToolError carries the plugin's own words.

        The result is empty where the command has none (DEL).
        """
        path = await FILES.run(self.find, kind)
        env = {
            "PATH": os.environ.get("PATH") or "/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": call.command,
            "CNI_CONTAINERID": call.container_id,
            "CNI_NETNS": call.netns,
            "CNI_IFNAME": call.interface,
            "CNI_ARGS": call.args,
            "CNI_PATH": os.pathsep.join(map(str, self._dirs)),
        }
        done = await self._host.run([str(path)], timeout=_TIMEOUT, stdin=json.dumps(config).encode(), env=env)
        tool = f"CNI plugin {kind}"
        if done.returncode != 0:
            raise ToolError(tool, call.command, done.returncode, _words(done))
        if call.command != "ADD":
            return {}
        result = _object(done.stdout)
        if result is None:
            raise ToolError(tool, call.command, 0, "its result is not a JSON object")
        return result


def _words(done: Completed) -> str:
    """Return what the plugin says went wrong: its error object, else its stderr, as one line."""
    error = _object(done.stdout) or {}
    parts = [str(error[key]) for key in ("msg", "details") if error.get(key)]
    words = ": ".join(parts) or (done.stderr or done.stdout).decode(errors="replace")
    return " ".join(words.split())[:_WORDS_LIMIT]


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
