"""``kubectl_complete-noderuntime``: complete the command line in the shell, as kubectl requests it.

kubectl passes the words after ``kubectl noderuntime``, the last one incomplete, and reads one candidate per
line and a directive for the shell. Nothing is an error here: what cannot be read has no candidates.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from argparse import ArgumentError
from collections.abc import Iterable, Sequence

from kubectl_noderuntime.arguments import connection
from kubectl_noderuntime.cli import COMMANDS
from kubectl_noderuntime.errors import PluginError
from kubectl_noderuntime.objects import name_of

NO_FILES = ":4"
"""The directive: the shell does not offer the names of files."""
SECONDS = 3.0

_KINDS = {"retry": "NodeRuntimeInstance", "why": "Pod"}
"""What the first argument of a command names, if not a NodeRuntime."""


def main() -> None:
    """Print the candidates for the last word."""
    *before, word = sys.argv[1:] or [""]
    for candidate in candidates(before):
        if candidate.startswith(word):
            print(candidate)
    print(NO_FILES)


def candidates(before: Sequence[str]) -> Iterable[str]:
    """Return what can follow these words: a command, or the names of its objects."""
    try:
        options, words = connection(default=None).parse_known_args(before)
        words = [word for word in words if not word.startswith("-")]
        if not words:
            return COMMANDS
        if len(words) > 1 or words[0] not in COMMANDS:
            return []
        kind = _KINDS.get(words[0], "NodeRuntime")
        names = _names(options.kubeconfig, options.context, options.namespace, kind)
        return asyncio.run(asyncio.wait_for(names, SECONDS))
    except (ArgumentError, PluginError, TimeoutError):
        return []


async def _names(file: str | None, context: str | None, namespace: str | None, kind: str) -> list[str]:
    """Return the names of all objects of a kind. Raises PluginError."""
    connect = importlib.import_module("kubectl_noderuntime.cluster").Cluster.connect
    async with await connect(file, context, namespace) as cluster:
        return [name_of(body) for body in await cluster.objects(kind)]
