"""The command line: one program for the daemon, the agent, the switch, and people; one command, one file.

A command's module has ``run(arguments) -> int``, which returns the exit status. It is imported
when the command runs, with what it needs: the switch works in a host unit that has a second to
spare, without gRPC; the daemon does without the agent.
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
    "status": "how the daemon, its network and its handlers are",
    "pods": "list pods, ours and those of the node's own runtime",
    "ps": "list containers",
    "images": "list images and what they take",
    "inspect": "show everything that is known of a pod, a container or an image",
    "logs": "print what a container said",
    "doctor": "look for what is wrong with this node, and say what to do",
    "serve": "run the CRI runtime until SIGTERM",
    "agent": "be the DaemonSet's pod",
    "switch": "give the kubelet this runtime, or the one it had before",
    "version": "print the version",
}


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; a failure is one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="noderuntime",
        description=noderuntime.__doc__,
        epilog="commands:\n" + "".join(f"  {name:9} {words}\n" for name, words in _COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see noderuntime COMMAND --help")
    options = parser.parse_args(arguments)
    try:
        return _run(options.command, options.arguments)
    except InvalidArgument as error:
        return _fail(error, EXIT_USAGE)
    except BrokenPipeError:  # whoever read had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except (NoderuntimeError, OSError) as error:
        return _fail(error, EXIT_FAILURE)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _run(command: str, arguments: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name need not fit into the terminal's encoding
    status: int = _load(command).run(arguments)
    sys.stdout.flush()
    return status


def _load(command: str) -> Any:
    """Import a command and all that it needs; to look for garbage meanwhile takes a tenth of the time."""
    gc.disable()
    try:
        return importlib.import_module(f"noderuntime.cli.{command}")
    finally:
        gc.freeze()
        gc.enable()


def _fail(error: Exception, status: int) -> int:
    print(f"noderuntime: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    return status
