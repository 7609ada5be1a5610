"""Run the command line of ``kubectl noderuntime``. A failure is one line on stderr."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from kubectl_noderuntime.arguments import parser
from kubectl_noderuntime.errors import PluginError
from noderuntime.cli.text import printable

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130

COMMANDS = {
    "status": "status:run",
    "watch": "watch:run",
    "why": "why:run",
    "history": "history:run",
    "pause": "control:pause",
    "resume": "control:resume",
    "retry": "control:retry",
    "rollback": "control:rollback",
}
"""Module and function of each command; imported when it runs, because its libraries are slow to load."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status. A wrong command line ends with status 2."""
    args = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal may not encode a name
    try:
        status = asyncio.run(_run(args))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except PluginError as error:
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


async def _run(args: argparse.Namespace) -> int:
    """Run the command with a connection to the cluster that the options select."""
    module, _, function = COMMANDS[args.command].partition(":")
    command = getattr(_imported(module), function)
    async with await _imported("cluster").Cluster.connect(
        args.kubeconfig, args.context, args.namespace
    ) as cluster:
        status: int = await command(cluster, args)
    return status


def _imported(module: str) -> Any:
    return importlib.import_module(f"kubectl_noderuntime.{module}")
