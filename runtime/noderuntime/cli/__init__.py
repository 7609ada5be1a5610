"""The command line: one program for the daemon, the agent, the switch and for people; one file per command.

A command's module defines ``run(arguments) -> int``, which returns the exit status. The module and
its dependencies are imported only when the command runs: the switch runs in a host unit that delays
the kubelet and must start fast, so it does not import gRPC; the daemon does not import the agent.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import noderuntime
from noderuntime.cli.text import printable
from noderuntime.core.errors import InvalidArgument, NoderuntimeError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_COMMANDS = {
    "status": "show the state of the daemon, its network and its handlers",
    "pods": "list pods, including those of the node's upstream runtime",
    "ps": "list containers",
    "images": "list images and their disk usage; pull or load images",
    "inspect": "show the details of a pod, a container or an image",
    "logs": "print the log of a container",
    "doctor": "check this node and suggest a fix for each problem",
    "check": "check whether this version can serve this node; changes nothing",
    "ledger": "print the ledger, also of a daemon that does not run",
    "serve": "run the CRI runtime until SIGTERM",
    "agent": "run the node agent (the DaemonSet's pod)",
    "switch": "switch the kubelet to this runtime or back to its previous one",
    "version": "print the version",
}


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status. A failure prints one line to stderr."""
    parser = argparse.ArgumentParser(
        prog="noderuntime",
        description=noderuntime.__doc__,
        epilog="commands:\n" + "".join(f"  {name:9} {summary}\n" for name, summary in _COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {noderuntime.__version__}")
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see noderuntime COMMAND --help")
    options = parser.parse_args(arguments)
    try:
        return _run(options.command, options.arguments)
    except InvalidArgument as error:
        return _fail(error, EXIT_USAGE)
    except BrokenPipeError:  # the reader closed the pipe, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except (NoderuntimeError, OSError) as error:
        return _fail(error, EXIT_FAILURE)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _run(command: str, arguments: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal may not encode a name
    status: int = _load(command).run(arguments)
    sys.stdout.flush()
    return status


def _load(command: str) -> Any:
    """Import a command's module. Garbage collection is off meanwhile: it takes a tenth of the import time."""
    gc.disable()
    try:
        return importlib.import_module(f"noderuntime.cli.{command}")
    finally:
        gc.freeze()
        gc.enable()


def _fail(error: Exception, status: int) -> int:
    print(f"noderuntime: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    return status
